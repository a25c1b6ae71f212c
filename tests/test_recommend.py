"""Items for one history, from a checkpoint of either head: lists of evaluation, texts and reasons."""

import csv
import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from conftest import as_flags
from good_folder import write_good_folder
from pyarrow import parquet

from pixelrec_train import Recommender
from pixelrec_train.commands import recommend as command
from pixelrec_train.config import RetrievalFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.recommend.checkpoints import load_either
from pixelrec_train.run import rendezvous
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.quantiser import Preprocessing, Quantiser
from pixelrec_train.trainings import recommend_all

HEADS = ("two_tower", "generative")


@pytest.fixture(scope="module")
def checkpoints(demo, demo_config, tmp_path_factory):
    """{head: best_model}; their flags name files of the working directory."""
    folder, before = tmp_path_factory.mktemp("checkpoints"), os.getcwd()
    write_good_folder(folder, demo, demo_config)
    os.chdir(folder)
    yield {"two_tower": "done/best_model", "generative": "told/best_model"}
    os.chdir(before)


@pytest.fixture(scope="module")
def doors(checkpoints):
    return {head: Recommender.load(checkpoints[head], retrieval="exact") for head in HEADS}


@pytest.mark.parametrize("head", HEADS)
def test_lists_and_scores_are_those_of_evaluation(doors, checkpoints, head):
    door = doors[head]
    loaded = load_either(checkpoints[head], {}, (), RetrievalFlags(retrieval="exact"))
    test = loaded.inputs.split.test
    rows = [test.history(e) for e in range(4)]
    ids = [[door.item_ids[item] for item in row] for row in rows]
    for exclude in (True, False):
        left_out = [row[: None if exclude else 0] for row in rows]
        wanted = [
            loaded.recommender.find([row], [out], np.full(1, -1), 7).lists
            for row, out in zip(rows, left_out, strict=True)
        ]
        found = door.recommend(ids, k=7, exclude_seen=exclude)
        for one, ((items,), (scores,)) in zip(found, wanted, strict=True):
            assert [r.item_id for r in one] == [door.item_ids[item] for item in items]
            assert [r.score for r in one] == pytest.approx(scores.tolist())
    assert door.recommend([]) == [] and len(door.recommend(ids[:1], k=10**6)[0]) <= len(door.item_ids)


def test_a_blend_recommends_too_and_says_no_reason(doors, checkpoints):
    door = Recommender.load(f"{checkpoints['two_tower']}+item_knn", retrieval="exact")
    history = doors["two_tower"].item_ids[3:8]
    (found,) = door.recommend([history], k=4)
    assert len(found) == 4 and not {one.item_id for one in found} & set(history)
    scores = [one.score for one in found]
    assert np.isfinite(scores).all() and scores == sorted(scores, reverse=True)


def test_reasons_and_texts(doors, demo_config):
    rows = {
        row["item_id"]: row["title"] for row in csv.DictReader(open(demo_config.text_data, encoding="utf-8"))
    }
    door = doors["two_tower"]
    history = door.item_ids[3:8]
    (found,) = door.recommend([history], k=5)
    vectors = {i: door.recommender.items[door.number[i]] for i in (*history, *(r.item_id for r in found))}
    for one in found:
        assert one.text == rows[one.item_id].strip() and one.semantic_id is None
        cosines = {i: float(vectors[i] @ vectors[one.item_id]) for i in history}
        assert one.because in history and one.likeness == pytest.approx(max(cosines.values()), abs=1e-6)
    door = doors["generative"]
    (found,) = door.recommend([history], k=5)
    codes = {i: door.codes(door.number[i]) for i in (*history, *(r.item_id for r in found))}
    for one in found:
        alike = {i: os.path.commonprefix([codes[i], one.semantic_id]) for i in history}
        assert one.semantic_id == codes[one.item_id] and one.likeness == max(map(len, alike.values()))


def write_twin(table, item_id, new_id, path):
    """A table like the one given, of one item with the texts of another; (its columns, the other's row)."""
    with open(table, encoding="utf-8") as file:
        names, *rows = list(csv.reader(file))
    at = names.index("item_id")
    twin = next(row for row in rows if row[at] == item_id)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, [*twin[:at], new_id, *twin[at + 1 :]]])
    return names, twin


def test_a_new_item_is_recommendable_by_its_text_at_once(doors, checkpoints, demo_config, tmp_path):
    old = doors["two_tower"]
    names, twin = write_twin(demo_config.text_data, old.item_ids[9], "brand-new", tmp_path / "new.csv")
    flags = {"new_items": str(tmp_path / "new.csv"), "retrieval": "exact"}
    door = Recommender.load(checkpoints["two_tower"], **flags)
    assert door.item_ids == [*old.item_ids, "brand-new"]
    vectors = torch.from_numpy(door.recommender.items)
    torch.testing.assert_close(vectors[9], vectors[-1])
    (found,) = door.recommend([[old.item_ids[9]]], k=3)
    assert found[0].item_id == "brand-new" and found[0].text == twin[names.index("title")].strip()
    (again,) = door.recommend([["brand-new"]], k=3)
    assert again[0].item_id == old.item_ids[9]
    with open(tmp_path / "new.csv", "a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(twin)
    with pytest.raises(InputError, match="1 items that the catalogue has already"):
        Recommender.load(checkpoints["two_tower"], **flags)
    with pytest.raises(InputError, match="is for one checkpoint, but .* is a blend"):
        Recommender.load(f"{checkpoints['two_tower']}+item_knn", **flags)


def test_the_command_says_it_to_people_and_programs(doors, checkpoints, tmp_path, capsys):
    door = doors["two_tower"]
    user = door.data.user_ids[4]
    history = door.history_of(user)
    (wanted,) = door.recommend([history], k=3)
    own = {"checkpoint": checkpoints["two_tower"], "retrieval": "exact", "k": 3}
    (tmp_path / "ids.txt").write_text("\n".join(history) + "\n")
    for whom in ({"user": user}, {"history": ",".join(history)}, {"history_file": tmp_path / "ids.txt"}):
        command.main(as_flags(own | whom | {"as_json": True}))
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["item_id"] for row in told] == [one.item_id for one in wanted]
    command.main(as_flags(own | {"user": user}))
    said = capsys.readouterr().out
    assert f"history, the newest 5 of {len(history)}" in said and f"1. {wanted[0].score:9.4f}" in said
    assert "cosine" in said and wanted[0].text in said


@pytest.mark.parametrize(
    "words, says",
    [
        ("--history a --user b", "--history and --user both say whom"),
        ("--history_file a --history b", "--history and --history_file both say whom"),
        ("--output_dir a --user b", "--user and --output_dir both say whom"),
        ("--history a --codebooks .", "--codebooks gives ids to --new_items"),
        ("--history a --k 0", "--k must be at least 1"),
        ("--history a --num_beams 0", "--num_beams must be None or at least 1"),
        ("--history a --retrieval ann", "--retrieval must be one of auto, faiss, faiss_fp16, exact"),
    ],
)
def test_flags_that_contradict(words, says):
    with pytest.raises(InputError, match=says):
        parse_args(command.RecommendConfig, ["--checkpoint", "c", *words.split()])


def test_people_and_items_that_are_not_there(doors, capsys):
    door = doors["two_tower"]
    with pytest.raises(InputError, match=f"there is no item 'nope'.*One is {door.item_ids[0]!r}"):
        door.recommend([["nope"]])
    with pytest.raises(InputError, match=f"Did you mean {door.item_ids[3]!r}"):
        door.recommend([[door.item_ids[3] + "x"]])
    with pytest.raises(InputError, match="a history is empty"):
        door.recommend([[]])
    with pytest.raises(InputError, match="there is no user 'nobody at all'"):
        door.history_of("nobody at all")
    with pytest.raises(SystemExit):
        command.main(["--checkpoint", "c"])
    assert "whom to recommend to?" in capsys.readouterr().err
    with pytest.raises(InputError, match="is not a checkpoint"):
        Recommender.load("nowhere")


def in_this_process(monkeypatch):
    monkeypatch.setattr(rendezvous, "initialise", lambda minutes: None)
    monkeypatch.setattr(rendezvous, "finish", lambda: None)


@pytest.mark.parametrize("head", HEADS)
def test_all_users_get_files_that_a_second_command_completes(
    doors, checkpoints, head, tmp_path, monkeypatch, capsys
):
    in_this_process(monkeypatch)
    monkeypatch.setattr(recommend_all, "USERS_PER_FILE", 50)
    door, users = doors[head], [0, 57, 119]
    names = door.data.user_ids
    wanted = door.recommend([door.history_of(names[user]) for user in users], k=4)
    flags = {"checkpoint": checkpoints[head], "retrieval": "exact", "k": 4, "output_dir": tmp_path / "all"}
    command.main(as_flags(flags))
    files = sorted((tmp_path / "all").glob("*.parquet"))
    assert [path.name for path in files] == [f"part-{n:05}-of-00003.parquet" for n in range(3)]
    table = parquet.read_table(tmp_path / "all").to_pylist()
    assert [row["user_id"] for row in table] == names
    for user, list_ in zip(users, wanted, strict=True):
        assert table[user]["item_ids"] == [one.item_id for one in list_]
        assert table[user]["scores"] == pytest.approx([one.score for one in list_], abs=1e-6)
    before = {path: path.read_bytes() for path in files}
    untouched = files[0].stat().st_mtime_ns
    files[1].unlink()
    capsys.readouterr()
    command.main(as_flags(flags))
    assert "2 of 3 files are there already; going on" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in files} == before and files[0].stat().st_mtime_ns == untouched
    with pytest.raises(InputError, match="holds recommendations with another k"):
        command.main.__wrapped__(as_flags(flags | {"k": 5}))
    command.main(as_flags(flags | {"k": 5, "overwrite": True}))
    assert len(parquet.read_table(tmp_path / "all")["item_ids"][0]) == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        command.main.__wrapped__(as_flags(flags | {"output_dir": tmp_path / "mine"}))


@pytest.fixture
def books(doors, checkpoints, tmp_path):
    """A directory of codebooks, as scripts/build_semantic_ids.py writes it, of the generative model's ids."""
    ids, catalogue = SemanticIds.load("sid.json"), doors["two_tower"].recommender.catalogue
    rows = np.random.default_rng(0).permutation(len(catalogue))
    pre = Preprocessing.fit(catalogue, "l2")
    quantiser = Quantiser(pre, [pre(catalogue)[rows[:size]] for size in ids.codebook_sizes])
    facts = {"dedup": "none", "quantiser": "rq_kmeans", "embedder": {"checkpoint": checkpoints["two_tower"]}}
    (tmp_path / "books").mkdir()
    quantiser.save(tmp_path / "books", facts)
    dataclasses.replace(ids, facts=facts).save(tmp_path / "books/semantic_ids.json")
    return tmp_path / "books"


def test_a_generative_model_says_a_new_item_by_the_codebooks_of_its_ids(
    doors, checkpoints, books, demo_config, tmp_path
):
    old = doors["generative"]
    write_twin(demo_config.text_data, old.item_ids[9], "brand-new", tmp_path / "new.csv")
    flags = {"new_items": str(tmp_path / "new.csv"), "codebooks": str(books), "retrieval": "exact"}
    door = Recommender.load(checkpoints["generative"], **flags)
    assert door.item_ids == [*old.item_ids, "brand-new"] and door.texts[-1] == door.texts[9]
    quantiser, tower = Quantiser.load(books), doors["two_tower"].recommender.catalogue
    wanted = quantiser.encode(quantiser.vectors(tower[9:10]))[0]
    assert door.codes(len(old.item_ids)) == tuple(wanted.tolist())
    assert [door.codes(n) for n in range(9)] == [old.codes(n) for n in range(9)]
    (found,) = door.recommend([old.item_ids[3:8]], k=len(door.item_ids))
    assert "brand-new" in {one.item_id for one in found}
    assert len(door.recommend([["brand-new"]], k=2)[0]) == 2

    with pytest.raises(InputError, match="--codebooks"):
        Recommender.load(checkpoints["generative"], new_items=flags["new_items"])
    ids, path = SemanticIds.load("sid.json"), books / "semantic_ids.json"
    known = SemanticIds.load(path).facts
    for facts, codes, says in (
        (known | {"embedder": None}, ids.codes, "cannot be had again"),
        (known | {"embedder": {"checkpoint": "gone"}}, ids.codes, "gone, which embedded"),
        (known, ids.codes[::-1].copy(), "trained with other ids"),
        ({}, ids.codes, "do not belong together"),
    ):  # fmt: skip
        dataclasses.replace(ids, codes=codes, facts=facts).save(path)
        with pytest.raises(InputError, match=says):
            Recommender.load(checkpoints["generative"], **flags)
