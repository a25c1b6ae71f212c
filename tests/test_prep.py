"""scripts/prep.py: other projects' files as our tables, and ours as theirs."""

import csv
import json
import random
import shutil

import numpy as np
import pytest
from conftest import ROOT, as_flags
from pyarrow import parquet
from test_semantic_id_files import PUBLISHED

from pixelrec_train.commands import prep
from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.data import item_fields
from pixelrec_train.data.convert import minionerec, minionerec_reading, onerec_think
from pixelrec_train.data.convert.minionerec_rows import histories_of
from pixelrec_train.data.convert.reading import literals
from pixelrec_train.data.given_split import PARTS, read_split
from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.semantic_id_files import read_index
from pixelrec_train.data.tables import open_table
from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id.codes import SemanticIds

FIXTURES = ROOT / "tests/fixtures"
THINK, MINI = FIXTURES / "onerec_think", FIXTURES / "minionerec"
REAL = PUBLISHED.parent


def run(source, data_dir, output_dir, **flags):
    flags = {"source": source, "data_dir": data_dir, "output_dir": output_dir} | flags
    prep.main(as_flags(flags))
    return output_dir


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def histories(path):
    """{user: items in the order of time} of a table of interactions."""
    found = {}
    for row in sorted(rows_of(path), key=lambda row: float(row["timestamp"])):
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def splits_of(expected):
    return {"items_onerec": expected["items"]} | {
        f"sequences_{p}": expected[p] for p in ("train", "val", "test")
    }


@pytest.fixture(scope="module")
def think(tmp_path_factory):
    return run("onerec_think", THINK / "files", tmp_path_factory.mktemp("think") / "out", their_files=True)


def test_onerec_thinks_files_come_out_as_its_own_step_makes_them(think):
    expected = json.loads((THINK / "expected_preparation.json").read_text())
    for name, rows in splits_of(expected).items():
        table = parquet.read_table(think / f"Beauty_{name}.parquet")
        assert table.to_pylist() == rows
        assert table.column_names == list(rows[0])


def test_onerec_thinks_files_become_our_tables(think):
    given = json.loads((THINK / "files/Beauty.pretrain.json").read_text())
    keys = {"title": "title", "tag": "categories", "description": "description"}
    expected = [
        {"item_id": item_id} | {ours: item[theirs] for ours, theirs in keys.items()}
        for item_id, item in given.items() if item_id != "32"
    ]  # fmt: skip
    assert rows_of(think / "items.csv") == expected
    text = (THINK / "files/sequential_data_processed.txt").read_text()
    lines = [line.split() for line in text.splitlines() if line]
    known = {user: [item_id for item_id in items if item_id != "999"] for user, *items in lines}
    assert histories(think / "interactions.csv") == known
    ids = SemanticIds.load(think / "semantic_ids.json")
    assert ids.codebook_sizes == (256,) * 4 and ids.item_ids == [row["item_id"] for row in expected]
    assert ids.of(["1"]).tolist() == [[1, 1, 231, 97]]


def test_what_is_left_out_is_counted_and_named(think, tmp_path, capsys):
    facts = json.loads((think / "facts.json").read_text())
    assert facts["broken_items"] == {"32": "'<|sid_begin|><s_a_1><s_b_2><|sid_end|>'"}
    assert facts["left_out_of_histories"]["is unknown"] == {"999": 1}
    assert facts["users_with_fewer_than_3_items"] == ["U91"]
    folder = shutil.copytree(THINK / "files", tmp_path / "files")
    with open(folder / "sequential_data_processed.txt", "a") as file:
        file.write("U92 32 5 32\n\nU93 777 32\nU94\n")
    facts = json.loads((run("onerec_think", folder, tmp_path / "out") / "facts.json").read_text())
    out = capsys.readouterr().out
    assert facts["left_out_of_histories"]["has a broken id"] == {"32": 3}
    assert facts["users_without_items"] == ["U93", "U94"]
    assert "items: 31 of 32, with ids of 4 levels; 1 share their id with an earlier one" in out
    assert "left out, as their id is broken: 1 ('32')" in out
    assert "left out, as their item has a broken id: 3 ('32'); left out, as their item is unknown: 2" in out
    assert "users without a known item, left out: 2 ('U93', 'U94')" in out


@pytest.mark.parametrize("limit", [5, 10, 31, 32, 500])
def test_a_limit_takes_as_many_items_and_lines_as_theirs(limit, tmp_path, think):
    expected = json.loads((THINK / "expected_preparation.json").read_text())
    kept = {item["parent_asin"] for item in expected["items"][:limit]}
    out = run("onerec_think", THINK / "files", tmp_path / "out", their_files=True, limit=limit)
    assert parquet.read_table(out / "Beauty_items_onerec.parquet").to_pylist() == expected["items"][:limit]
    lines = (THINK / "files/sequential_data_processed.txt").read_text().splitlines()[:limit]
    known = [[i for i in line.split()[1:] if i in kept] for line in lines]
    found = parquet.read_table(out / "Beauty_sequences_val.parquet").column("sequence").to_pylist()
    assert found == [items[:-1] for items in known if len(items) >= 3]
    facts = json.loads((out / "facts.json").read_text())
    assert facts["items_behind_limit"] == max(0, 32 - limit)
    absent = sum(sum(items.values()) for items in facts["left_out_of_histories"].values())
    assert absent == sum(len(line.split()[1:]) for line in lines) - sum(map(len, known))


def test_our_tables_written_as_onerec_thinks_are_read_back(think, tmp_path):
    ids, items = SemanticIds.load(think / "semantic_ids.json"), rows_of(think / "items.csv")
    item_ids, titles, tags, descriptions = (
        [row[name] for row in items] for name in ("item_id", "title", "tag", "description")
    )
    users = histories(think / "interactions.csv").items()
    folder = tmp_path / "files"
    folder.mkdir()
    codes = ids.of(item_ids)
    onerec_think.write(folder, "Ours", item_ids, codes, ids.codebook_sizes, titles, descriptions, tags, users)
    again = run("onerec_think", folder, tmp_path / "out")
    for name in ("items.csv", "interactions.csv"):
        assert (again / name).read_bytes() == (think / name).read_bytes()
    assert np.array_equal(SemanticIds.load(again / "semantic_ids.json").codes, ids.codes)
    with pytest.raises(InputError, match="user 'a b' has no place there"):
        onerec_think.write(
            folder, "Ours", item_ids, codes, (256,) * 4, titles, titles, tags, [("a b", ["1"])]
        )
    with pytest.raises(InputError, match="some items have fewer levels"):
        onerec_think.write(folder, "Ours", ["1"], [[1, -1]], (256,) * 2, ["t"], ["d"], ["c"], [])


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    return run("minionerec", MINI / "files", tmp_path_factory.mktemp("mini") / "out")


def test_minionerecs_files_become_our_tables(mini):
    given = rows_of(MINI / "files/train.csv")
    expected = [
        {
            "split": "train", "user_id": row["user_id"], "item_id": row["item_id"],
            "history": " ".join(map(str, json.loads(row["history_item_id"]))),
        }
        for row in given
    ]  # fmt: skip
    assert rows_of(mini / "split.csv") == expected
    assert histories(mini / "interactions.csv") == {
        row["user_id"]: [*row["history"].split(), row["item_id"]] for row in expected
    }
    texts = TextFlags(text_data=str(mini / "items.csv"), text_keys=("title", "description"))
    fields, _ = item_fields.read_fields([str(n) for n in range(12)], texts)
    assert fields[2] == ("tape steel screw gloves small", "short the longest of these")
    assert [fields[n][1] for n in (1, 3, 4)] == ["", "", ""]
    facts = json.loads((mini / "facts.json").read_text())
    assert facts["absent"] == ["valid", "test"] and facts["items_in_no_row"] == ["3"]
    assert (facts["items_that_share_their_id"], facts["items_that_share_their_title"]) == (1, 1)


@pytest.mark.parametrize("base", [0, 1])
def test_minionerecs_ids_are_read_as_an_imported_index(base, tmp_path):
    """All levels, whatever their number: a suffix that sets one item apart is kept."""
    folder = shutil.copytree(MINI / "files", tmp_path / "files")
    index = json.loads((folder / "index.json").read_text())
    index["7"].append("<d_1>")
    (folder / "index.json").write_text(json.dumps(index))
    for name in ("train.csv", "info.txt"):
        (folder / name).unlink()
    write_rows(folder / "train.csv", [("u", "7", ["2", "0"])], index)
    out = run("minionerec", folder, tmp_path / "out", code_base=base)
    found = SemanticIds.load(out / "semantic_ids.json")
    expected = read_index(folder / "index.json", "minionerec", code_base=base)
    assert found.codes.tolist() == expected.codes.tolist() and found.levels == 4
    assert found.codebook_sizes == expected.codebook_sizes and found.facts == expected.facts


def write_rows(path, rows, index, **also):
    lines = [
        {
            "user_id": user, "item_id": item, "history_item_id": str([int(i) for i in history]),
            "history_item_sid": str(["".join(index[i]) for i in history]), "item_sid": "".join(index[item]),
        } | also
        for user, item, history in rows
    ]  # fmt: skip
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def test_their_folders_are_found_by_name_and_duplicate_rows_stay(tmp_path):
    index = json.loads((MINI / "files/index.json").read_text())
    for name in ("Office", "Office_Products"):
        for part in PARTS:
            (tmp_path / part).mkdir(exist_ok=True)
            rows = [("u", "2", ["0", "1"]), ("u", "2", ["0", "1"]), (name, "5", ["2"])]
            write_rows(tmp_path / f"{part}/{name}_5_2016-10-2018-11.csv", rows, index)
        (tmp_path / "index").mkdir(exist_ok=True)
        for kind in ("index", "item"):
            shutil.copy(MINI / f"files/{kind}.json", tmp_path / f"index/{name}.{kind}.json")
    out = run("minionerec", tmp_path, tmp_path / "out", name="Office_Products")
    assert [row["history"] for row in rows_of(out / "split.csv")] == ["0 1", "0 1", "2"] * 3
    assert histories(out / "interactions.csv") == {"u": ["0", "1", "2"], "Office_Products": ["2", "5"]}
    assert json.loads((out / "facts.json").read_text())["name"] == "Office_Products"
    with pytest.raises(InputError, match=r"holds 2 files train/\*\.csv: .*Say which with --name"):
        minionerec_reading.read(tmp_path)


def windows(taken, longest):
    """Rows as MiniOneRec makes them of what a user took."""
    return [(taken[end], taken[max(0, end - longest) : end]) for end in range(1, len(taken))]


@pytest.mark.parametrize("seed", range(30))
def test_rows_are_put_together_to_what_every_user_took(seed):
    """Though rows stand there twice, items are taken again and again, and users' rows alternate."""
    dice = random.Random(seed)
    longest, catalogue = dice.choice([2, 3, 10]), [str(n) for n in range(dice.choice([1, 2, 30]))]
    expected = {f"u{n}": dice.choices(catalogue, k=dice.randint(2, 40)) for n in range(6)}
    queues = {user: windows(taken, longest) for user, taken in expected.items()}
    rows = []
    while queues:
        user = dice.choice(list(queues))
        item_id, history = queues[user].pop(0)
        # Of a history that was cut nobody can tell a second copy from a second taking of one item in a row.
        twice = dice.random() < 0.3 and len(history) < longest
        rows += [("train", user, item_id, history)] * (1 + twice)
        queues = {user: left for user, left in queues.items() if left}
    assert histories_of(rows) == (expected, 0)


def test_rows_whose_neighbours_are_missing_still_come_out_in_order():
    taken = [str(n) for n in range(30)]
    rows = [("train", "u", item, history) for item, history in windows(taken, 10)]
    kept = rows[2:3] + rows[6:9] + rows[15:16] + rows[25:]
    assert histories_of(kept) == ({"u": taken}, 3)
    assert histories_of([*kept, *kept])[0] == {"u": taken}
    apart = [("train", "u", "2", ["1"]), ("train", "u", "9", ["8"])]
    assert histories_of(apart) == ({"u": ["1", "2", "8", "9"]}, 1)


def test_our_tables_written_as_minionerecs_are_read_back(mini, tmp_path):
    index = json.loads((MINI / "files/index.json").read_text())
    items, rows = rows_of(mini / "items.csv"), rows_of(mini / "split.csv")
    split = [(r["split"], r["user_id"], r["item_id"], r["history"].split()) for r in rows]
    columns = {name: [row[name] for row in items] for name in items[0]}
    folder = tmp_path / "files"
    minionerec.write(
        folder, "Ours", columns["item_id"], [index[i] for i in columns["item_id"]], columns["title"],
        columns["description"], split, tags=[f"brand {i}" for i in columns["item_id"]],
    )  # fmt: skip
    assert json.loads((folder / "index/Ours.index.json").read_text()) == index
    assert (folder / "info/Ours.txt").read_text() == (MINI / "files/info.txt").read_text()
    assert rows_of(folder / "train/Ours.csv") == rows_of(MINI / "files/train.csv")
    again = run("minionerec", folder, tmp_path / "out")
    for name in ("interactions.csv", "split.csv"):
        assert (again / name).read_bytes() == (mini / name).read_bytes()
    assert [row["tag"] for row in rows_of(again / "items.csv")] == [f"brand {i}" for i in columns["item_id"]]
    with pytest.raises(InputError, match="an item stands there twice"):
        minionerec.write(folder, "Ours", ["1", "1"], [["<a_1>"]] * 2, ["t"] * 2, ["d"] * 2, [])
    with pytest.raises(InputError, match="no known part, or of unknown items"):
        minionerec.write(folder, "Ours", ["1"], [["<a_1>"]], ["t"], ["d"], [("train", "u", "2", ["1"])])


def test_lists_as_text_are_literals_and_nothing_runs(tmp_path):
    assert literals(" ['a', \"it's\", '\\d']") == ["a", "it's", "\\d"]
    trap = tmp_path / "trap"
    for text in (f"[open({str(trap)!r}, 'w')]", "[1", "{}", "7", "[" * 10_000, "[x]"):
        assert literals(text) is None
    assert not trap.exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="the published data are not on this machine")
def test_the_published_split_in_minionerecs_layout_is_read_back_whole(tmp_path):
    """38,341 rows of Amazon's Industrial and Scientific: tables, ids, and the interactions themselves."""
    ids_path, split_path = (
        REAL / "sid/amazon_industrial.index.json",
        REAL / "split/amazon_industrial.official.csv",
    )
    words, items = json.loads(ids_path.read_text()), rows_of(REAL / "information/amazon_industrial.csv")
    rows = [(r["split"], r["user_id"], r["item_id"], r["history"].split()) for r in rows_of(split_path)]
    columns = {name: [row[name] for row in items] for name in ("item_id", "title", "tag", "description")}
    minionerec.write(
        tmp_path / "files", "Industrial_and_Scientific", columns["item_id"],
        [words[item_id] for item_id in columns["item_id"]], columns["title"], columns["description"], rows,
        tags=columns["tag"],
    )  # fmt: skip
    out = run("minionerec", tmp_path / "files", tmp_path / "out")
    assert rows_of(out / "items.csv") == items
    found = [
        (r["split"], r["user_id"], r["item_id"], r["history"].split()) for r in rows_of(out / "split.csv")
    ]
    assert found == sorted(rows, key=lambda row: PARTS.index(row[0]))  # sorted keeps the order within a part
    ids, expected = SemanticIds.load(out / "semantic_ids.json"), read_index(ids_path, "minionerec")
    assert ids.codebook_sizes == expected.codebook_sizes
    assert np.array_equal(ids.of(columns["item_id"]), expected.of(columns["item_id"]))
    assert histories(out / "interactions.csv") == histories(REAL / "dataset/amazon_industrial.csv")
    data = DataFlags(
        interaction_data=str(out / "interactions.csv"), cache_dir=str(tmp_path / "cache"),
        split_data=str(out / "split.csv"),
    )  # fmt: skip
    split = read_split(data.split_data, read_interactions(data), 11)
    assert (len(split.valid), len(split.test)) == (4532, 4533)
    assert open_table(out / "items.csv").names == ["item_id", "title", "tag", "description"]
