"""build_samples --layout: our tables in other projects' files, which scripts/prep.py reads back equal."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import as_flags
from pyarrow import parquet

from pixelrec_train.commands import build_samples, prep
from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.item_fields import plain_text
from pixelrec_train.data.samples.rows import row_counts, samples
from pixelrec_train.semantic_id.codes import ABSENT, SemanticIds

SIZES = (8, 8, 8)
TEXTS = ("title", "tag", "description")


@pytest.fixture
def folder(demo, demo_config, tmp_path, monkeypatch):
    """The current directory: the demo's tables, and ids of three levels, some of which are shared."""
    monkeypatch.chdir(tmp_path)
    for name in ("interactions", "items"):
        Path(f"{name}.csv").write_bytes((demo / f"{name}.csv").read_bytes())
    item_ids = read_interactions(demo_config).item_ids
    codes = np.random.default_rng(0).integers(0, 8, (len(item_ids), 3)).astype(np.int32)
    codes[:8] = np.arange(8)[:, None]  # every code is taken, so an index knows how many there are
    SemanticIds(item_ids, codes, SIZES).save("sid.json")
    return tmp_path


def make(layout, output="theirs", **changes):
    flags = {
        "layout": layout, "interaction_data": "interactions.csv", "text_data": "items.csv",
        "cache_dir": "cache", "text_keys": TEXTS, "semantic_ids": "sid.json", "output_dir": output,
    } | changes  # fmt: skip
    build_samples.main(as_flags(flags))
    return Path(output)


def back(source, directory, **more):
    prep.main(as_flags({"source": source, "data_dir": directory, "output_dir": "back"} | more))
    return Path("back")


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logs(path="interactions.csv"):
    """{user: items, oldest first}"""
    found = {}
    for row in sorted(rows_of(path), key=lambda row: float(row["timestamp"])):
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def texts(path):
    """{item: its texts, as views read them}"""
    return {row["item_id"]: [plain_text(row[key]).strip() for key in TEXTS] for row in rows_of(path)}


def assert_same_items(directory):
    """Texts and codes of all items."""
    own, found = SemanticIds.load("sid.json"), SemanticIds.load(directory / "semantic_ids.json")
    assert sorted(found.item_ids) == sorted(own.item_ids)
    assert np.array_equal(found.of(own.item_ids), own.codes) and found.codebook_sizes == own.codebook_sizes
    written, told = texts(directory / "items.csv"), texts("items.csv")
    assert written == {item: told.get(item, ["", "", ""]) for item in own.item_ids}


def expected_rows(history):
    """[(part, user, item, history)] of everybody's last two items held out, written out by hand."""
    for user, items in logs().items():
        for n in range(1, len(items)):
            part = {len(items) - 1: "test", len(items) - 2: "valid"}.get(n, "train")
            yield part, user, items[n], " ".join(items[max(0, n - history) : n])


@pytest.mark.parametrize("history", [None, 3])
def test_minionerecs_files_are_read_back_equal(folder, history, capsys):
    theirs = make("minionerec", **({"history": history} if history else {}))
    names = ["facts.json", "index/interactions.index.json", "index/interactions.item.json"]
    names += ["info/interactions.txt", *(f"{part}/interactions.csv" for part in ("test", "train", "valid"))]
    assert sorted(str(p.relative_to(theirs)) for p in theirs.rglob("*") if p.is_file()) == sorted(names)
    ours = back("minionerec", theirs)
    made = [tuple(row.values()) for row in rows_of(ours / "split.csv")]
    assert Counter(made) == Counter(expected_rows(history or 10))
    assert_same_items(ours)
    facts = json.loads((theirs / "facts.json").read_text())
    assert facts["rows"] == Counter(row[0] for row in made) and facts["files"] == sorted(names[1:])
    assert facts["origin"] == "everybody's last two items are held out"
    out = capsys.readouterr().out
    assert f"train {facts['rows']['train']:>12,} rows" in out
    # What everybody took comes out of the rows, but for who took one item alone.
    known = {user: items for user, items in logs().items() if len(items) > 1}
    assert logs(ours / "interactions.csv") == known


def test_minionerecs_rows_of_a_given_split_come_back_as_they_were(folder):
    users = list(logs().items())
    with open("split.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("split", "user_id", "item_id", "history"))
        for number, (user, items) in enumerate(users):
            part = ("train", "train", "valid", "test")[number % 4]
            for n in range(1, len(items)):
                writer.writerow((part, user, items[n], " ".join(items[max(0, n - 4) : n])))
    theirs = make("minionerec", split_data="split.csv", history=4, name="Mine")
    made = Counter(tuple(row.values()) for row in rows_of(back("minionerec", theirs) / "split.csv"))
    assert made == Counter(tuple(row.values()) for row in rows_of("split.csv"))
    assert (theirs / "test/Mine.csv").is_file()


@pytest.mark.parametrize(("protocol", "parts"), [("last_item", 2), ("time_811", 3)])
def test_minionerecs_files_follow_the_protocol_of_the_split(folder, protocol, parts):
    facts = json.loads((make("minionerec", split_protocol=protocol) / "facts.json").read_text())
    assert len(facts["rows"]) == parts and facts["origin"].startswith(protocol)
    assert sum(facts["rows"].values()) == sum(len(items) - 1 for items in logs().values())
    assert Path("theirs/test").is_dir() == (parts == 3)
    if protocol == "time_811":
        assert logs(back("minionerec", "theirs") / "interactions.csv") == {
            user: items for user, items in logs().items() if len(items) > 1
        }


def test_minionerecs_index_holds_shorter_ids_whole(folder):
    ids = SemanticIds.load("sid.json")
    codes = ids.codes.copy()
    codes[5::9, 2] = ABSENT
    SemanticIds(ids.item_ids, codes, SIZES).save("sid.json")
    theirs = make("minionerec")
    index = json.loads((theirs / "index/interactions.index.json").read_text())
    assert index == {
        item: [f"<{letter}_{code}>" for letter, code in zip("abc", row, strict=True) if code != ABSENT]
        for item, row in zip(ids.item_ids, codes.tolist(), strict=True)
    }
    assert_same_items(back("minionerec", theirs))


def chats(file):
    return [
        (sample.source, list(sample.messages))
        for group in range(len(row_counts(file))) for _, sample in samples(file, group)
    ]  # fmt: skip


def test_onerec_thinks_files_are_read_back_equal(folder, capsys):
    theirs = make("onerec_think", name="Demo", limit_type_c=50)
    assert "prep.py reads these files back with --codebook_sizes 8,8,8" in capsys.readouterr().out
    ours = back("onerec_think", theirs, codebook_sizes="8,8,8", their_files=True)
    assert_same_items(ours)
    assert logs(ours / "interactions.csv") == logs()
    for name in ("items_onerec", "sequences_train", "sequences_val", "sequences_test"):
        written, again = (parquet.read_table(d / f"Demo_{name}.parquet") for d in (theirs, ours))
        assert written.num_rows > 20
        key = written.column_names[0]
        assert sorted(written.to_pylist(), key=lambda r: r[key]) == sorted(
            again.to_pylist(), key=lambda r: r[key]
        )
    # The conversations are the samples of train, in their spelling.
    make("samples", "ours", task="onerec_think", codec="semantic_ids_llm", limit_type_c=50)
    expected = [chat for file in sorted(Path("ours").glob("*.parquet")) for chat in chats(file)]
    table = parquet.read_table(theirs / "Demo_conversations_train_onerec.parquet")
    assert table.column_names == ["conversations", "type"]
    made = [(row["type"], row["conversations"]) for row in table.to_pylist()]
    assert made == expected and len({task for task, _ in made}) == 20
    assert chats(theirs / "Demo_conversations_train_onerec.parquet") == expected
    facts, other = (json.loads(Path(d, "facts.json").read_text()) for d in ("theirs", "ours"))
    assert facts["samples"] == other["samples"] and facts["left_out"] == other["left_out"]
    assert facts["users"] == len(logs())


def test_the_conversations_are_those_of_the_tasks_that_are_named(folder):
    make("onerec_think", task="sid_history_to_sid,type_a_sid_to_title", split_protocol="last_item")
    table = parquet.read_table("theirs/interactions_conversations_train_onerec.parquet")
    assert set(table.column("type").to_pylist()) == {"sid_history_to_sid", "type_a_sid_to_title"}
    targets = sum(max(0, len(items) - 2) for items in logs().values())  # all but the first and the last
    assert Counter(table.column("type").to_pylist())["sid_history_to_sid"] == targets


def test_a_layout_replaces_its_own_files_alone(folder, capsys):
    before = {path: path.read_bytes() for path in make("minionerec").rglob("*") if path.is_file()}
    make("minionerec", overwrite=True)
    assert {path: path.read_bytes() for path in Path("theirs").rglob("*") if path.is_file()} == before
    for layout in ("onerec_think", "samples"):
        with pytest.raises(SystemExit):
            make(layout, overwrite=True)
        assert "no build wrote it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        make("minionerec")
    assert "already holds files" in capsys.readouterr().err


# preferences that somebody wrote


def preferences(split="train"):
    """Entries of everybody's newest stretch of a part, and how they are to be told."""
    entries, last = [], {"train": 3, "valid": 2, "test": 1}[split]
    for user, items in logs().items():
        if len(items) > 5:
            *history, target = items[: len(items) - last + 1][-4:]
            text = f"{user} takes {len(items)} things {{sic}}"
            context = {"history_items": history, "target_item": target}
            entries.append({"user": user, "user_preference": text, "split": split, "context": context})
    return entries


def told(entries, **changes):
    """[(prompt, answer)] of samples of `preference`, and facts.json."""
    Path("p.jsonl").write_text("\n".join(map(json.dumps, entries)))
    make("samples", "told", task="preference", preference_data="p.jsonl", overwrite=True, **changes)
    made = [chat for file in sorted(Path("told").glob("*.parquet")) for _, chat in chats(file)]
    asked = [(messages[1]["content"], messages[2]["content"]) for messages in made]
    return asked, json.loads(Path("told/facts.json").read_text())


def spelled(item):
    ids = SemanticIds.load("sid.json")
    return "".join(f"<{x}_{c}>" for x, c in zip("abc", ids.of([item])[0].tolist(), strict=True))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_preferences_are_told_in_their_own_words(folder, split):
    entries = preferences(split)
    entries[1]["user_preference"] = ["first", " then "]
    asked, facts = told(
        [*entries, *preferences("test" if split != "test" else "valid")], codec="minionerec", split=split,
        text_data="items.csv",
    )  # fmt: skip
    assert len(asked) == len(entries) > 50
    for entry, (prompt, answer) in zip(entries, asked, strict=True):
        context, text = entry["context"], entry["user_preference"]
        history = ", ".join(map(spelled, context["history_items"]))
        assert prompt == (
            f"The user has interacted with items {history} in chronological order. Can you analyze the "
            f"user's preferences and predict the next item?"
        )
        text = text if isinstance(text, str) else "first\nthen"
        assert answer == f"### Reasoning:\n{text}\n### Response:\n{spelled(context['target_item'])}"
    (other,) = facts["left_out"]
    assert other["samples"] == len(entries) and other["why"].startswith("preferences of ")


def test_a_list_and_lines_of_preferences_say_the_same_and_need_no_texts(folder):
    entries = preferences()
    lines = told(entries)[0]
    Path("p.json").write_text(json.dumps(entries, indent=1))
    flags = {"task": "preference", "preference_data": "p.json"}
    build_samples.main(
        as_flags(
            flags
            | {"interaction_data": "interactions.csv", "semantic_ids": "sid.json", "cache_dir": "cache"}
            | {"output_dir": "listed"}
        )
    )
    made = [chat for file in sorted(Path("listed").glob("*.parquet")) for _, chat in chats(file)]
    assert [(chat[1]["content"], chat[2]["content"]) for chat in made] == lines


def test_a_preference_does_not_teach_what_the_tables_hold_out(folder):
    """Whatever its file calls train: here each goes one item too far."""
    entries, far = preferences(), preferences("valid")
    for entry in far:
        entry["split"] = "train"
    asked, facts = told([*entries, *far])
    own = {user: items[:-2] for user, items in logs().items()}
    again = sum(e["context"]["target_item"] in own[e["user"]] for e in far)  # taken in training as well
    assert len(asked) == len(entries) + again and again < len(far) / 2
    assert facts["left_out"] == [
        {
            "task": "preference", "samples": len(far) - again,
            "why": "preferences of items that their user did not take in training",
        }
    ]  # fmt: skip


def test_preferences_without_text_or_history_are_counted_and_the_last_item_may_be_the_target(folder):
    entries = preferences()
    expected = told(entries)[0]
    entries[0]["user_preference"] = [" "]
    entries[1]["context"]["history_items"] = []
    context = entries[2]["context"]
    context["history_items"].append(context.pop("target_item"))
    asked, facts = told([*entries, entries[5]], samples_per_user=1)
    assert asked == expected[2:]
    assert {left["why"]: left["samples"] for left in facts["left_out"]} == {
        "preferences without a text": 1, "preferences without a history": 1, "beyond --samples_per_user": 1,
    }  # fmt: skip
    assert [prompt.count("<|sid_begin|>") for prompt, _ in told(entries, history=2)[0]] == [2] * len(
        expected[2:]
    )
