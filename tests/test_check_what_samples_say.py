"""Checking what samples say: ids, answers, special words; each planted mistake is found in its row."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from test_check_samples import check, kinds, write

from pixelrec_train.data.checks import answers, ids_in_texts, same_samples, special_words
from pixelrec_train.data.checks.found import Group
from pixelrec_train.data.samples import Sample
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds

SIZES = (3, 4, 5)
CODES = np.array([(0, 0, 0), (0, 1, 2), (1, 1, 4), (2, 3, 1), (2, 3, 1)], np.int32)
FACTS = {"user_id": "u", "history_items": 2}


@pytest.fixture
def sid(tmp_path):
    SemanticIds([f"i{n}" for n in range(len(CODES))], CODES, SIZES).save(tmp_path / "sid.json")
    return tmp_path / "sid.json"


def spelled(codec, *items):
    return [CODECS[codec].text(CODES[item], SIZES) for item in items]


def chat(question, answer, system=None, **more):
    said = {"system": system} if system else {}
    said |= {"user": question, "assistant": answer}
    return {"messages": [{"role": r, "content": c} for r, c in said.items()]} | more


def found_in(capsys, path, rows, *flags, source="s"):
    """(exit status, {what is wrong: the rows it is in}, what is printed)"""
    write(path, [{"source": source} | row for row in rows], row_group_size=3)
    code, out = check(capsys, path, *flags)
    places = {what: [int(p.split(" row ")[1].split()[0]) for p in at] for what, (_, at) in kinds(out).items()}
    return code, places, out


@pytest.mark.parametrize("codec", list(CODECS))
def test_ids_that_no_item_has_are_found_in_every_spelling(codec, sid, tmp_path, capsys):
    own, (begin, end) = CODECS[codec], (CODECS[codec].begin, CODECS[codec].end)

    def of(codes):
        return own.text(codes, SIZES)

    a, b, c = own.words((1, 1, 4), SIZES)
    numbered = f"<|sid_{sum(SIZES)}|>" if own.is_numbered else own.pattern.format(letter="c", level=2, code=5)
    first, second, third, last = spelled(codec, 0, 1, 2, 4)
    rows = [
        chat(f"{first} and {second}", third),
        {"segments": [f"{first}{second}{third}", f" {last}"]},
        chat(f"after {first}, {of((0, 1, 3))}?", "no"),
        chat("which?", f"{begin}{b}{a}{c}{end}"),
        chat("which?", f"{begin}{a}{c}{end} or {first}"),
        chat("which?", f"{begin}{a}{b}{end}"),
        chat("which?", f"{begin}{a}{b}{numbered}{end}"),
        chat("a", "b", system=f"ids are as {begin}{a}{c}{end}"),
    ]  # fmt: skip
    code, wrong, out = found_in(capsys, tmp_path / "a.parquet", rows, "--semantic_ids", sid, "--codec", codec)
    assert code == 1
    assert wrong == {
        ids_in_texts.NO_ITEM: [3],
        ids_in_texts.OUT_OF_ORDER: [4],
        ids_in_texts.SHORT: [5, 6],
        ids_in_texts.BEYOND: [7],
    }
    assert f"ids: 4 of 5 items, in the spelling {codec};" in out
    good = [row for n, row in enumerate(rows, 1) if n in (1, 2, 8)]
    code, wrong, out = found_in(capsys, tmp_path / "a.parquet", good, "--semantic_ids", sid, "--codec", codec)
    assert (code, wrong) == (0, {})
    assert out.split("of all\n")[1].splitlines()[0].split() == ["s", "7", "7", "7", "4", "100.0%"]


def test_tokens_of_each_level_are_those_of_a_slow_count(sid, tmp_path, capsys):
    rng, rows, tokens, ids = np.random.default_rng(0), [], Counter(), defaultdict(set)
    for _ in range(60):
        source, items = str(rng.choice(["one", "two"])), rng.integers(0, 3, rng.integers(2, 9))
        words = spelled("minionerec", *items)
        rows.append(chat(" ".join(words[:-1]) + " next?", words[-1], source=source))
        ids[source] |= set(items.tolist())
        for word in words:
            for level, letter in enumerate("abc"):
                tokens[source, level] += word.count(f"<{letter}_")
    write(tmp_path / "a.parquet", rows, row_group_size=7)
    code, out = check(capsys, tmp_path / "a.parquet", "--semantic_ids", sid, "--codec", "minionerec")
    assert code == 0
    for source in ("one", "two"):
        counts = [f"{tokens[source, level]}" for level in range(3)]
        line = next(at for at in out.split("of all\n")[1].splitlines() if at.startswith(source))
        assert line.split() == [source, *counts, f"{len(ids[source])}", f"{len(ids[source]) / 4:.1%}"]


def test_ids_of_different_lengths_and_beginnings_of_ids(tmp_path, capsys):
    codes = np.array([(0, 1, -1), (1, 0, 0), (1, 0, 1)], np.int32)
    SemanticIds(list("xyz"), codes, (2, 2, 2)).save(tmp_path / "sid.json")
    flags = ("--semantic_ids", tmp_path / "sid.json", "--codec", "minionerec")
    rows = [
        chat("<a_0><b_1>, <a_1><b_0><c_0><a_1><b_0><c_1>", "yes"),
        chat("what do items share that begin with <a_1><b_0>?", "that", source="type_d_prefix_category"),
        chat("what do items share that begin with <a_1>?", "that", source="type_d_prefix_category"),
    ]
    code, wrong, out = found_in(capsys, tmp_path / "a.parquet", rows, *flags)
    assert (code, wrong) == (0, {})
    assert "\ns " in out and out.split("\ns ")[2].split()[:4] == ["3", "3", "2", "3"]
    more = [
        chat("<a_1>?", "yes"),
        chat("<a_0><b_0>?", "yes", source="type_d_prefix_category"),
        chat("<a_1><b_0>?", "yes"),
    ]
    code, wrong, _ = found_in(capsys, tmp_path / "a.parquet", [*rows, *more], *flags)
    assert (code, wrong) == (1, {ids_in_texts.SHORT: [4], ids_in_texts.NO_ITEM: [5, 6]})


def test_ids_without_their_begin_and_end_are_read_and_said(sid, tmp_path, capsys):
    rows = [chat("<s_a_0><s_b_1><s_c_2><s_a_1><s_b_1><s_c_4>", "<|sid_begin|><s_a_0><s_b_0><s_c_0>")]
    code, wrong, out = found_in(capsys, tmp_path / "a.parquet", rows, "--semantic_ids", sid)
    assert (code, wrong) == (0, {})
    assert f"warn   s: {ids_in_texts.BARE}: 3, the first in {tmp_path}/a.parquet row 1" in out
    rows = [chat("which?", "<|sid_begin|><|sid_end|>")]
    assert found_in(capsys, tmp_path / "a.parquet", rows, "--semantic_ids", sid)[1] == {
        ids_in_texts.EMPTY: [1]
    }


def test_a_question_that_holds_its_answer_is_wrong_where_the_view_asks_for_it(tmp_path, capsys):
    (a, b), text = spelled("minionerec", 0, 1), "a heavy wooden chair"
    rows = [
        chat(f"What is the title of {a}?", text, source="sid_to_title"),
        chat(f"What is the title of {a}?\n### Response:\n{text}", f"{text}\n", source="sid_to_title"),
        chat(f"What is the title of {a}, {text}, you know?", text, source="sid_to_title"),
        chat(f"Which item has the title {text}?\n\n### Response:\n{a}", a, source="title_to_sid"),
        chat(f"Which item, {a} or another, has the title {text}?", a, source="type_b_title_to_sid"),
        chat(f"Which item has the title {text}?", a, source="type_b_title_to_sid"),
        chat(f"Which item is {text}?\n\n### Response:\n{a}", f"<think>\nhm\n</think>\n{a}", source="other"),
        chat(f"Who likes {a} likes {text}", text, source="other"),
        chat("Say it again: " + text, text, source="general"),
        chat("Say " + text + ", will you?", text, source="general"),
        chat(f"After {b} and {a} comes?", a, source="type_c_seq_full"),
        chat(f"Go on: {b}{a}", a, source="video_rec", metadata=FACTS),
        chat(f"Go on: {a}", a, source="video_rec", metadata=FACTS),
        chat(f"Go on: {b}{a}", a, source="their_rec"),
        chat("Is it a chair?", "chair", source="sid_to_title"),
        chat(f"Who is {a}?", "<think>\n\n</think>\n\n", source="type_a_sid_to_title"),
        chat(f"What is the title of {a}?\n\n### Response:\nchair", "chair", source="sid_to_title"),
    ]
    code, wrong, out = found_in(capsys, tmp_path / "a.parquet", rows)
    assert code == 1
    assert wrong == {answers.ENDS: [2, 4, 7, 8, 17], answers.HOLDS: [3], answers.HOLDS_ID: [5]}
    for note in (
        f"note   general: {answers.AT_END}: 1 (50.0%), the first in {tmp_path}/a.parquet row 9",
        f"note   general: {answers.QUOTED}: 1 (50.0%), the first in {tmp_path}/a.parquet row 10",
        f"note   type_c_seq_full: {answers.AGAIN}: 1 (100.0%), the first in {tmp_path}/a.parquet row 11",
        f"note   video_rec: {answers.AGAIN}: 2 (100.0%), the first in {tmp_path}/a.parquet row 12",
        f"note   video_rec: {answers.AT_END}: 2 (100.0%), the first in {tmp_path}/a.parquet row 12",
        f"note   their_rec: {answers.AT_END}: 1 (100.0%), the first in {tmp_path}/a.parquet row 14",
        f"warn   type_a_sid_to_title: {answers.EMPTY}: 1, the first in {tmp_path}/a.parquet row 16",
    ):
        assert note in out, note


@pytest.mark.parametrize("share, code", [(0.4, 0), (0.6, 1)])
def test_questions_that_mostly_end_with_their_answer_are_wrong_where_items_may_be_taken_again(
    share, code, tmp_path, capsys
):
    a, b, c = spelled("onerec", 0, 1, 2)
    rows = [chat(f"{b}{a}{n}{a if n < share * 50 else c}", a, metadata=FACTS) for n in range(50)]
    status, wrong, out = found_in(capsys, tmp_path / "a.parquet", rows, source="video_rec")
    assert status == code and list(wrong) == [answers.ENDS_OFTEN] * code
    assert f"note   video_rec: {answers.AGAIN}: 50 (100.0%)" in out
    assert (f"video_rec: 30 of 50, the first is {tmp_path}/a.parquet row 1" in out) == bool(code)


def test_what_says_the_same_and_what_is_ambiguous_are_those_of_dictionaries():
    rng, groups, marks, rows, whole, begin = np.random.default_rng(1), [], [], [], {}, 0
    for path, number, size in (("a", 0, 50), ("a", 1, 30), ("b", 0, 0), ("c", 0, 90)):
        groups.append(Group(path, number, size, begin))
        begin += size
    names = [f"a row {n}" for n in range(1, 81)] + [f"c row {n}" for n in range(1, 91)]
    for name in names:
        source, question, answer = (str(rng.integers(0, most)) for most in (3, 30, 3))
        kind = rng.integers(0, 5)
        if kind == 0:  # no sample
            marks.append(same_samples.NO_MARK)
            continue
        messages = tuple({"role": r, "content": c} for r, c in (("user", question), ("assistant", answer)))
        if kind == 1:
            sample, key = Sample(name, source, None, (question,)), (None, question)
        elif kind == 2:
            sample, key = Sample(name, source, messages[:1], None), (question, None)
        else:
            thought = "<think>hm</think>" * int(rng.integers(0, 2))
            messages[1]["content"] = thought + answer
            sample, key = Sample(name, source, messages, None), (question, answer)
        marks.append(same_samples.mark_of(sample, key[1] if sample.messages else None))
        rows.append((name, source, key))
        whole[name] = key if sample.messages is None else tuple(m["content"] for m in sample.messages)
    expected, last, by_question = {}, {}, defaultdict(dict)
    for name, source, key in rows:
        if (said := whole[name]) in last:
            count, place = expected.get((source, same_samples.SAME), (0, f"{name} (= {last[said]})"))
            expected[source, same_samples.SAME] = count + 1, place
        last[said] = name
        if None not in key:
            by_question[key[0]].setdefault(key[1], name)
    several = defaultdict(list)
    for name, source, key in rows:
        if None not in key and len(by_question[key[0]]) > 1:
            several[source].append((name, [n for a, n in by_question[key[0]].items() if a != key[1]]))
    found = list(same_samples.notes(np.array(marks, same_samples.MARK), groups, ["0", "1", "2", "x"]))
    same = {(s, what): (count, place) for s, what, count, place in found if what == same_samples.SAME}
    assert same == expected and len(same) == 3
    unsure = {s: (count, place) for s, what, count, place in found if what == same_samples.SEVERAL}
    assert {s: count for s, (count, _) in unsure.items()} == {s: len(own) for s, own in several.items()}
    for source, (_, place) in unsure.items():
        name, others = several[source][0]
        row, beside = place.rstrip(")").split(" (beside ")
        assert row == name
        answer = {n: key[1] for n, _, key in rows}
        assert answer[beside] != answer[name] and any(answer[beside] == answer[o] for o in others)


def test_several_answers_to_one_question_are_a_note_with_an_example(tmp_path, capsys):
    a, b = spelled("onerec", 0, 1)
    rows = [chat("in Beauty?", a), chat("in Hair?", a), chat("in Beauty?", b), chat("in Beauty?", b)]
    code, wrong, out = found_in(capsys, tmp_path / "a.parquet", rows, source="type_b_categories_to_sid")
    where = f"{tmp_path}/a.parquet row"
    assert (code, wrong) == (0, {})
    assert f"{same_samples.SEVERAL}: 3 (75.0%), the first in {where} 1 (beside {where} 3)" in out
    assert f"{same_samples.SAME}: 1 (25.0%), the first in {where} 4 (= {where} 3)" in out


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    base = write_causal_lm(["a question and an answer"] * 3, folder / "base", 32, layers=1, chat=True)
    mute = write_causal_lm(["a question and an answer"] * 3, folder / "mute", 32, layers=1)
    expand(base, folder / "llm", "onerec", SIZES, "mean", 0)
    return {"llm": folder / "llm", "base": base, "mute": mute}


def test_words_that_the_tokenizer_splits_are_wrong_where_ids_or_thoughts_are_learned(
    models, sid, tmp_path, capsys
):
    a, b = spelled("onerec", 0, 1)
    form = "ids are <|sid_begin|><|sid_X|><|sid_Y|><|sid_end|>"
    rows = [
        chat(a, f"<think>\n\n</think>\n{b}", system=form),
        chat("what is <|endofprompt|>, x <| y |> z, a<b>c</b>?", "a mark"),
    ]
    path, flags = tmp_path / "a.parquet", ("--semantic_ids", sid)
    code, wrong, out = found_in(capsys, path, rows, "--model_dir", models["llm"], *flags)
    assert (code, wrong) == (0, {})
    assert (
        f"warn   samples without ids: {special_words.SPLIT} (<|endofprompt|>): 1, the first in {path}" in out
    )
    code, wrong, out = found_in(capsys, path, rows, "--model_dir", models["base"])
    assert code == 1 and list(wrong) == [special_words.SPLIT]
    assert f"wrong  {special_words.SPLIT}: 7\n" in out
    assert f"<s_a_0>, 2 times, the first in {path} row 1" in out and "<think>" not in out
    code, wrong, out = found_in(
        capsys, path, [chat("a", "<think>\nb\n</think>\nc")], "--model_dir", models["llm"]
    )
    assert (code, wrong) == (0, {})
    lost = [{"segments": ["<think>b</think> c"]}]
    code, wrong, out = found_in(capsys, path, lost, "--model_dir", models["mute"])
    assert code == 1 and f"wrong  {special_words.SPLIT}: 2\n" in out
    rows = [chat(*spelled("minionerec", 0, 1)), chat("<|rec|>", a)]
    code, wrong, out = found_in(capsys, path, rows, "--model_dir", models["llm"], *flags)
    assert code == 1 and wrong[special_words.SPLIT] == [1] * 5 + [2]


def test_the_spelling_is_that_of_the_models_vocabulary(models, sid, tmp_path, capsys):
    path = write(tmp_path / "a.parquet", [chat(*spelled("onerec", 0, 1))])
    (tmp_path / "dataset.json").write_text(
        json.dumps({"sources": str(path), "base_model_dir": str(models["llm"])})
    )
    code, out = check(capsys, "--dataset_config", tmp_path / "dataset.json", "--semantic_ids", sid)
    assert code == 0 and "in the spelling onerec;" in out
