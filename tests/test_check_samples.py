"""Checking files of samples: planted problems are found in their rows, and good files have none."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from conftest import run_command
from pyarrow import parquet

from pixelrec_train.commands import check_samples
from pixelrec_train.data.checks import odd_samples
from pixelrec_train.data.checks.found import SHOWN, Group
from pixelrec_train.data.checks.same_samples import NO_UUID, REPEATED, repeats
from pixelrec_train.trainings import check_samples as report

CHAT = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": "an answer"}]
NOT_JSON = "Expecting property name enclosed in double quotes: line 1 column 3 (char 2)"
ROLES = "a role is not one of system, user, assistant, tool"
DOCUMENT = [{"type": "text", "text": "a document"}]


def write(path, rows, **how):
    """A row is {column: value}; a uuid, the source "s" and metadata are there unless given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    usual = [{"uuid": f"{path.stem}-{n}", "source": "s", "metadata": "{}"} for n in range(len(rows))]
    columns = ("uuid", "source", "metadata", "messages", "segments")
    cells = [
        {c: v if v is None or isinstance(v, str) else json.dumps(v) for c, v in (a | b).items()}
        for a, b in zip(usual, rows, strict=True)
    ]
    table = pa.table({c: pa.array([row.get(c) for row in cells], pa.string()) for c in columns})
    parquet.write_table(table, path, **how)
    return path


def check(capsys, *arguments):
    """(exit status, what is printed) of the command."""
    with pytest.raises(SystemExit) as stop:
        check_samples.main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert "error" not in err
    return stop.value.code, out


def kinds(out):
    """{what is wrong: [count, [places]]} as it is printed."""
    found = {}
    for line in out.splitlines():
        if match := re.fullmatch(r"wrong  (.*): ([\d,]+)", line):
            found[match[1]] = (int(match[2].replace(",", "")), places := [])
        elif line.startswith("       ") and found:
            places.append(line.strip())
    return found


def test_every_rule_is_found_broken_in_its_file_and_row(tmp_path, capsys):
    first = write(tmp_path / "data/part-0.parquet", [{"messages": CHAT}] * 5, row_group_size=2)
    second = write(
        tmp_path / "data/part-1.parquet",
        [
            {"messages": CHAT, "uuid": "part-0-3"},
            {"messages": CHAT, "uuid": None},
            {"messages": CHAT, "source": ""},
            {"messages": CHAT, "metadata": "[]"},
            {"messages": CHAT, "metadata": "{"},
            {"messages": CHAT, "metadata": None},  # nobody reads it
            {"messages": "[{"},
            {"segments": DOCUMENT, "uuid": "part-0-3"},
            {"messages": CHAT[1:]},
            {"messages": [CHAT[0] | {"role": "bot"}]},
            {"messages": CHAT, "uuid": None},
            {},
        ],
        row_group_size=3,
    )
    code, out = check(capsys, tmp_path / "data")
    assert code == 1
    assert kinds(out) == {
        "uuid is missing": (2, [f"{second} row 2", f"{second} row 11"]),
        "source is empty": (1, [f"{second} row 3"]),
        "metadata is no JSON object": (1, [f'{second} row 4 ("[]")']),
        "metadata is not JSON": (1, [f'{second} row 5 ("{{")']),
        "messages is not JSON": (1, [f"{second} row 7 ({NOT_JSON})"]),
        "the first message is the assistant's": (1, [f"{second} row 9"]),
        ROLES: (1, [f'{second} row 10 (message 1 has "bot")']),
        "it has neither messages nor segments": (1, [f"{second} row 12"]),
        REPEATED: (
            2,
            [f"{second} row 1 (= {first} row 4)", f"{second} row 8 (= {second} row 1)"],
        ),
    }
    # 17 rows: 12 of the second file, of which 6 are no sample.
    assert out.startswith("samples: 11 in 2 files: 10 chats, 1 documents\n")


def test_good_files_have_nothing_wrong_and_the_counts_of_a_slow_look(tmp_path, capsys):
    rng = np.random.default_rng(0)
    total = {}
    for part in range(3):
        rows = []
        for _ in range(400):
            source, words = rng.choice(["video_rec", "general"]), "word " * int(rng.integers(1, 50))
            is_chat = source == "general"
            rows.append({"source": str(source), ("messages" if is_chat else "segments"): (
                [CHAT[0], CHAT[1] | {"content": words}] if is_chat else [words, "end"]
            )})  # fmt: skip
            count = total.setdefault(str(source), [0, 0])
            count[0] += 1
            count[1] += len(words) + len("a question" if is_chat else "end")
        write(tmp_path / f"part-{part}.parquet", rows)
    code, out = check(capsys, *sorted(tmp_path.glob("*.parquet")))
    assert code == 0 and "ok     nothing wrong" in out and "wrong  " not in out
    chats, documents = total["general"][0], total["video_rec"][0]
    assert f"samples: 1,200 in 3 files: {chats:,} chats, {documents:,} documents" in out
    for source, (count, characters) in total.items():
        mine = (count, 0) if source == "general" else (0, count)
        cells = [f"{count:,}", f"{count / 1200:.1%}", *map("{:,}".format, mine), f"{characters / count:.1f}"]
        assert re.search(rf"^{source} +{' +'.join(cells)}$", out, re.M), out
    assert "characters per chat: median" in out and "characters per document: median" in out
    bars = [int(n.replace(",", "")) for n in re.findall(r"\d +([\d,]+) █", out)]
    assert sum(bars) == 1200


def test_tokens_and_labels_are_those_of_training(tmp_path, capsys, chat_model):
    from pixelrec_train.data.samples import rows
    from pixelrec_train.data.tokens.chat import Renderer
    from pixelrec_train.libraries import load_tokenizer

    samples = [{"messages": CHAT} if n % 3 else {"segments": DOCUMENT * n} for n in range(1, 201)]
    path = write(tmp_path / "a.parquet", samples, row_group_size=64)
    read = [s for group in range(4) for _, s in rows.samples(path, group)]
    config = {"sources": str(path), "base_model_dir": str(chat_model), "max_sample_length": 100}
    for extra in ({}, {"add_think_pattern": True}, {"only_assistant_loss": False}):
        (tmp_path / "dataset.json").write_text(json.dumps(config | extra))
        encoded = Renderer(load_tokenizer(chat_model), **{"only_assistant_loss": True} | extra).encode(read)
        tokens = sum(len(ids) for ids, _ in encoded)
        labels = sum(int(is_label.sum()) for _, is_label in encoded)
        code, out = check(capsys, "--dataset_config", tmp_path / "dataset.json")
        assert code == 0 and re.search(rf" {tokens / 200:.1f} +{labels / tokens:.1%}$", out, re.M), out
        long = np.mean([len(ids) > 100 for ids, _ in encoded])
        assert f"too long: {long:.2%} of the samples have more than 100 tokens" in out
    code, out = check(capsys, path, "--model_dir", chat_model, "--tokenised", 50)
    assert "Tokens are those of 50 samples" in out


def test_the_first_twenty_of_a_kind_are_named_and_the_rest_is_counted(tmp_path, capsys):
    same = [{"messages": CHAT, "uuid": "same"}] * 31
    write(tmp_path / "a.parquet", same, row_group_size=7)
    path = write(tmp_path / "b.parquet", [{"messages": "x"}] * 25, row_group_size=7)
    found = kinds(check(capsys, tmp_path)[1])
    count, places = found[REPEATED]
    assert (count, len(places), places[-1]) == (30, 21, "and 10 more")
    assert places[19] == f"{tmp_path}/a.parquet row 21 (= {tmp_path}/a.parquet row 20)"
    count, places = found["messages is not JSON"]
    assert (count, len(places), places[-1]) == (25, 21, "and 5 more") and f"{path} row 20 (" in places[19]


def test_repeats_are_those_of_a_dictionary():
    rng = np.random.default_rng(0)
    groups, begin = [], 0
    for path, number, size in (("a", 0, 40), ("a", 1, 30), ("b", 0, 0), ("c", 0, 50)):
        groups.append(Group(path, number, size, begin))
        begin += size
    hashes = rng.integers(0, 60, begin).astype(np.uint64)
    names = [f"a row {n}" for n in range(1, 71)] + [f"c row {n}" for n in range(1, 51)]
    last, expected = {}, []
    for uuid, name in zip(hashes.tolist(), names, strict=True):
        if uuid != NO_UUID and uuid in last:
            expected.append(f"{name} (= {last[uuid]})")
        last[uuid] = name
    assert repeats(hashes, groups) == (len(expected), expected[:SHOWN])


def test_what_trains_all_the_same_is_a_remark(tmp_path, capsys):
    chats = [
        CHAT[:1],
        [CHAT[0], CHAT[0], CHAT[1]],
        [CHAT[0], {"role": "system", "content": "x"}, CHAT[1]],
        [CHAT[0], CHAT[1] | {"name": "bob"}],
        [CHAT[0] | {"content": [{"type": "image"}]}, CHAT[1]],
    ]
    write(tmp_path / "a.parquet", [{"messages": chat} for chat in chats], row_group_size=2)
    write(tmp_path / "b.parquet", [])
    code, out = check(capsys, tmp_path)
    assert code == 0 and "ok     nothing wrong" in out
    for what in (odd_samples.NOTHING_LEARNED, odd_samples.TWICE, odd_samples.LATE_SYSTEM, "not read (name)"):
        assert re.search(
            rf"^warn   s: .*{re.escape(what)}: 1, the first in {tmp_path}/a.parquet row \d", out, re.M
        )
    assert f"files without a row: 1, the first is {tmp_path}/b.parquet" in out
    assert "files with several row groups: 1;" in out and "rows of a file: 2;" in out


def test_a_damaged_file_among_others_is_named_and_the_others_are_read(tmp_path, capsys):
    rows = [{"messages": CHAT}] * 300
    good = write(tmp_path / "a.parquet", rows)
    bad = write(tmp_path / "b.parquet", rows, compression="none", use_dictionary=False)
    whole = bad.read_bytes()
    bad.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])
    worse = write(tmp_path / "c.parquet", rows)
    worse.write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    code, out = check(capsys, tmp_path)
    assert code == 1 and "samples: 300 in 3 files" in out and str(good) not in str(kinds(out))
    assert f"{bad} is damaged" in out and f"{worse} is damaged" in out


def test_several_processes_say_what_one_says(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "FEW", 10)
    for part in range(4):
        rows = [{"messages": CHAT, "uuid": f"{n % 37}"} if n % 7 else {"segments": "x"} for n in range(50)]
        write(tmp_path / f"part-{part}.parquet", rows, row_group_size=20)
    one = check(capsys, tmp_path, "--processes", 1)
    assert check(capsys, tmp_path, "--processes", 3) == one and one[0] == 1


def test_the_script_ends_with_one_where_rows_are_wrong(tmp_path):
    write(tmp_path / "a.parquet", [{"messages": CHAT}, {"messages": "x"}])
    done = run_command(["python", "scripts/check_samples.py", tmp_path])
    assert done.returncode == 1 and "wrong  messages is not JSON: 1" in done.stdout and not done.stderr


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A directory with a tokenizer that has a chat template."""
    from pixelrec_train.model.tiny import train_tokenizer

    tokenizer = train_tokenizer(["a question", "an answer", "a document"], 300)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    folder = tmp_path_factory.mktemp("chat_model")
    tokenizer.save_pretrained(folder)
    return folder
