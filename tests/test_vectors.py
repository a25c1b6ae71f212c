"""Numbers of OpenOneRec's own code, reproduced through our public path (benchmarks/vectors.py)."""

import json
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_chat
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks import openonerec, vectors  # noqa: E402

NUMBERS = ROOT / "tests/fixtures/openonerec"


def test_every_quantity_of_the_original_is_reproduced(capsys):
    assert vectors.main(["openonerec", str(NUMBERS)]) == 0
    assert "199 of 199 quantities agree" in capsys.readouterr().out


@pytest.fixture
def numbers(tmp_path):
    return shutil.copytree(NUMBERS, tmp_path / "any name")


def failed(directory, tmp_path):
    checks = openonerec.all_checks(directory, tmp_path / "cache")
    return [check.name for check in checks if not check.holds]


def change(path, function):
    values = json.loads(path.read_text())
    function(values)
    path.write_text(json.dumps(values))


def flip(mask, place):
    mask[place] = 1 - mask[place]


@pytest.mark.parametrize(
    "file, function, named",
    [
        ("samples", lambda v: flip(v["samples"][0]["label_mask_right"], -3), "one turn: labels"),
        ("samples", lambda v: flip(v["samples"][1]["itemic_mask"], -3), "content as dict: itemic"),
        ("samples", lambda v: v["samples"][14]["input_ids"].pop(), "one turn, think pattern: tokens"),
        (
            "packs",
            lambda v: v[0]["packs"][1]["cu_seqlens"].pop(2),
            "packs 0 (cut, 96 tokens), pack 1: cu_seqlens",
        ),
        (
            "packs",
            lambda v: flip(v[1]["packs"][3]["position_ids"], 0),
            "packs 1 (uncut, 96 tokens), pack 3: position_ids",
        ),
        (
            "learning_rate",
            lambda v: v[1]["lr_at_step"].append(1e-9),
            "learning rates 1: 17 steps, 0 of warm-up, 10 in all",
        ),
    ],
    ids=["label", "itemic", "token", "bounds", "position", "rate"],
)
def test_a_number_that_is_off_is_noticed_and_named(numbers, tmp_path, file, function, named):
    change(numbers / f"expected_{file}.json", function)
    assert named in failed(numbers, tmp_path)


def test_packs_that_ours_does_not_make_are_noticed(numbers, tmp_path):
    change(numbers / "expected_packs.json", lambda v: v[1].update(max_length=80))
    off = failed(numbers, tmp_path)
    assert "packs 1 (uncut, 80 tokens), pack 0: samples" in off
    assert "packs 1 (uncut, 80 tokens): number" in off


def test_a_sample_without_expected_numbers_is_noticed(numbers, tmp_path):
    change(numbers / "expected_samples.json", lambda v: v["samples"].pop(3) and v["samples"].pop(16))
    change(numbers / "expected_packs.json", lambda v: v.clear())
    assert failed(numbers, tmp_path) == ["samples without expected numbers"]


def test_samples_of_another_template_are_compared_as_well(numbers, tmp_path):
    """Llama 3's, written out by hand; the packs are those of samples with the think pattern."""
    tokenizer = test_chat.tokenizer_with("llama3")
    shutil.rmtree(numbers / "tokenizer")
    tokenizer.save_pretrained(numbers / "tokenizer")
    chats = [[test_chat.user(f"拉面 {n}"), test_chat.assistant(" travel 🍜\n" * n)] for n in range(1, 6)]
    rows = [dict(uuid="same", source="s", messages=json.dumps(chat)) for chat in chats]  # one uuid for all
    pq.write_table(pa.Table.from_pylist(rows), numbers / "samples.parquet")
    told = [by_hand(tokenizer, chat, f"chat {n}", t) for t in (False, True) for n, chat in enumerate(chats)]
    (numbers / "expected_samples.json").write_text(json.dumps({"samples": told}))
    first, second = told[5], told[6]
    ids = first["input_ids"] + second["input_ids"]
    room = len(ids)  # the second reaches it and is cut to it: not at all
    total = -(-room // 8) * 8 + 64
    packed = {
        "cases": ["chat 0", "chat 1"],
        "input_ids": ids + [tokenizer.pad_token_id] * (total - room),
        "position_ids": [*range(len(first["input_ids"])), *range(len(second["input_ids"]))]
        + [0] * (total - room),
        "itemic_id_mask": [0] * total,
        "cu_seqlens": [0, len(first["input_ids"]), room, total],
        "sample_idx": [0] * len(first["input_ids"]) + [1] * len(second["input_ids"]) + [-1] * (total - room),
    }
    block = {"cut_to_pad": True, "max_length": room, "packs": [packed], "left_over_never_emitted": []}
    (numbers / "expected_packs.json").write_text(json.dumps([block]))
    assert not failed(numbers, tmp_path)


def by_hand(tokenizer, chat, case, think):
    if think:
        question, answer = (message["content"] for message in chat)
        chat = [test_chat.user(question + "/no_think"), test_chat.assistant("<think>\n</think>\n" + answer)]
    pieces = list(test_chat.llama3(chat))
    text, is_label = "".join(p for p, _ in pieces), [learned for p, learned in pieces for _ in p]
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [int(is_label[start]) for start, _ in read["offset_mapping"]]
    return dict(
        case=case, uuid="same", add_think_pattern=think, text=text, input_ids=read["input_ids"],
        label_mask_right=labels,
    )  # fmt: skip


@pytest.mark.parametrize("missing", ["expected_packs.json", "expected_samples.json", "samples.parquet"])
def test_a_file_that_is_missing_is_a_sentence_and_no_agreement(numbers, missing, capsys):
    (numbers / missing).unlink()
    assert vectors.main(["openonerec", str(numbers)]) == 1
    assert missing in capsys.readouterr().err


def test_an_unknown_project_is_a_sentence(capsys):
    assert vectors.main(["another", str(NUMBERS)]) == 2
    assert "name one of openonerec" in capsys.readouterr().err
