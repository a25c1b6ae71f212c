"""scripts/build_semantic_ids.py, from embeddings to ids on disk."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, as_flags, run_command
from safetensors.numpy import save_file

from pixelrec_train.commands.build_semantic_ids import BuildConfig, main
from pixelrec_train.config import TableFlags
from pixelrec_train.data import interactions
from pixelrec_train.data.inputs import Inputs
from pixelrec_train.data.protocols import leave_last_two_out
from pixelrec_train.data.tables import open_table
from pixelrec_train.flags import parse_args
from pixelrec_train.model.backbone import save_tensors
from pixelrec_train.recommend import item_embeddings
from pixelrec_train.run import rendezvous
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.rq_kmeans import rq_kmeans_balanced
from pixelrec_train.trainings.train_rq_vae import starting_model

N = 90


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory of the only rank, with embeddings of 90 items, some of them equal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rendezvous, "initialise", lambda timeout_minutes: None)
    monkeypatch.setattr(rendezvous, "finish", lambda: None)
    table = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    table[80:] = table[:10]
    np.save("items.npy", table)
    save_file({"item_embeddings": table}, "items.safetensors")
    (tmp_path / "ids.txt").write_text("".join(f"i{n}\n" for n in range(N)))
    return tmp_path


FLAGS = {"matrix": "items.npy", "matrix_ids": "ids.txt", "codebook_size": 8, "levels": 2, "output_dir": "out"}


def build(**changes):
    flags = {name: value for name, value in (FLAGS | changes).items() if value is not None}
    main(as_flags(flags))
    return SemanticIds.load(f"{flags['output_dir']}/semantic_ids.json")


def card(directory="out"):
    return json.loads(open(f"{directory}/report_card.json").read())


@pytest.mark.parametrize("quantiser", ["rq_kmeans", "rq_kmeans_balanced"])
def test_each_rule_for_collisions_keeps_its_promise(folder, quantiser, capsys):
    none = build(quantiser=quantiser, dedup="none")
    assert none.codes.shape == (N, 2)
    assert card()["distinct_ids"] == len(np.unique(none.codes, axis=0)) < N
    suffix = build(quantiser=quantiser, dedup="suffix", output_dir="suffix")
    assert (suffix.codes[:, :2] == none.codes).all()
    assert card("suffix")["collision_rate"] == 0
    assert card("suffix")["worst_group"] == 1
    reassign = build(quantiser=quantiser, dedup="reassign", output_dir="reassign")
    fell_through = reassign.facts["fell_through"]
    assert card("reassign")["distinct_ids"] == N - fell_through == 64  # all there are
    assert f"{fell_through} fell through" in capsys.readouterr().out
    assert build(quantiser=quantiser, output_dir="auto").levels == 3  # 64 ids are too few for 90 items


def test_the_same_command_gives_the_same_file(folder):
    build()
    before = (folder / "out/semantic_ids.json").read_bytes()
    build(overwrite=True, matrix="items.safetensors")
    after = (folder / "out/semantic_ids.json").read_bytes()
    assert after.replace(b"items.safetensors", b"items.npy") == before
    assert build(seed=3, output_dir="other").codes.tolist() != build(output_dir="again").codes.tolist()


def test_a_matrix_may_be_bf16(folder):
    table = torch.from_numpy(np.load("items.npy")).bfloat16()
    save_tensors({"item_embeddings": table}, folder / "bf16.safetensors")
    assert (item_embeddings.read_matrix("bf16.safetensors") == table.float().numpy()).all()


@pytest.mark.parametrize("rule", ["none", "suffix", "reassign"])
def test_new_items_get_ids_from_saved_codebooks_and_old_ones_keep_theirs(folder, rule):
    old = build(quantiser="rq_kmeans", levels=3, dedup=rule)
    table = np.load("items.npy")
    np.save("new.npy", np.concatenate([table[:40], table[:5] + 1e-4]))
    (folder / "new.txt").write_text(
        "".join(f"i{n}\n" for n in range(40)) + "".join(f"n{n}\n" for n in range(5))
    )
    new = build(matrix="new.npy", matrix_ids="new.txt", codebooks="out", output_dir="more", levels=3)
    assert new.item_ids == old.item_ids + [f"n{n}" for n in range(5)]
    assert (new.codes[:N] == old.codes).all()
    assert new.facts["quantiser"] == "rq_kmeans"
    if rule == "none":
        assert old.facts["collision_rate_before"] == card()["collision_rate"] > 0
        assert (new.codes[N:] == old.codes[:5]).all()
    else:
        assert card("more")["collision_rate"] == 0
    if rule == "suffix":
        assert (new.codes[N:, :3] == old.codes[:5, :3]).all()


def test_popular_items_keep_the_nearest_ids(folder):
    """Of items with equal embeddings the one with more interactions has suffix 0."""
    rows = [(f"u{u}", item, t) for u in range(9) for t, item in enumerate(("i85", "i86", "i5", "i20", "i21"))]
    lines = ["user_id,item_id,timestamp", *(f"{u},{i},{t}" for u, i, t in rows), "v,i6,1", "v,i7,2"]
    (folder / "log.csv").write_text("\n".join(lines))
    ids = build(interaction_data="log.csv", dedup="suffix", quantiser="rq_kmeans", cache_dir="cache")
    five, eighty_five = ids.of(["i5", "i85"])
    assert five[:2].tolist() == eighty_five[:2].tolist()
    first = ids.of(["i85", "i86"])
    assert first[0, 2] == 0 or first[1, 2] == 0
    assert card()["interactions_involved"] == 0


def test_ids_of_an_encoder_and_of_a_checkpoint(folder, demo, demo_config):
    texts = {"text_data": demo / "items.csv", "text_keys": "title,tag", "cache_dir": "cache"}
    no_matrix = {"matrix": None, "matrix_ids": None}
    ids = build(**no_matrix, **texts, encoder_model_dir=demo / "towers/item_llm", max_text_length=24)
    assert ids.item_ids == [item for (item,) in open_table(demo / "items.csv").rows(["item_id"])]

    data = interactions.read([demo / "interactions.csv"], TableFlags(cache_dir="cache"))
    log = {"interaction_data": demo / "interactions.csv"}
    known = build(
        **no_matrix, **texts, **log, encoder_model_dir=demo / "towers/item_llm", max_text_length=24,
        output_dir="known",
    )  # fmt: skip
    assert known.item_ids == data.item_ids
    assert card("known")["interactions_involved"] is not None


@pytest.mark.parametrize("given", ["tables", "rows"])
def test_counts_are_of_what_was_taken_in_training_however_it_was_split(folder, given):
    (folder / "train.csv").write_text("user_id,item_id,timestamp\n" + "".join(
        f"u,{item},{time}\n" for time, item in enumerate(["i1", "i2", "i1", "i3"])))  # fmt: skip
    for name, item in (("valid", "i2"), ("test", "i3")):
        (folder / f"{name}.csv").write_text(f"user_id,item_id,timestamp\nu,{item},9\n")
    (folder / "rows.csv").write_text(
        "split,user_id,item_id,history\ntrain,u,i3,i1 i2 i1\nvalid,u,i2,i1\ntest,u,i3,i1\n"
    )
    split = {
        "rows": {"split_data": "rows.csv"},
        "tables": {"valid_data": "valid.csv", "test_data": "test.csv"},
    }
    flags = FLAGS | {"interaction_data": "train.csv", "cache_dir": "cache"}
    last_two, whole = (
        item_embeddings.of_matrix("items.npy", "ids.txt", parse_args(BuildConfig, as_flags(flags | changes)))
        for changes in ({}, split[given])
    )
    assert last_two.interactions[:4].tolist() == [0, 1, 1, 0]
    assert whole.interactions[:4].tolist() == [0, 2, 1, 1] and whole.interactions[4:].sum() == 0


def test_a_checkpoints_items_are_its_embeddings_end_to_end(folder, demo_config, monkeypatch):
    table = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
    data = interactions.read([demo_config.interaction_data], TableFlags(cache_dir="cache"))

    inputs = Inputs(data, leave_last_two_out(data, 5), None)
    loaded = inputs, None, np.resize(table, (data.num_items, 4)), 5
    monkeypatch.setattr(item_embeddings, "load_towers", lambda checkpoint, *rest: loaded)
    ids = build(matrix=None, matrix_ids=None, checkpoint="run/best_model")
    assert ids.item_ids == data.item_ids
    assert ids.facts["source"] == "the checkpoint run/best_model"
    assert ids.facts["normalise"] == "l2"


def test_import_and_export_on_the_command_line(folder):
    ids = build(dedup="suffix", export_index="index.json", codec="minionerec")
    main(as_flags({"import_index": "index.json", "codec": "minionerec", "output_dir": "back"}))
    assert (SemanticIds.load("back/semantic_ids.json").codes == ids.codes).all()
    main(as_flags({"semantic_ids": "out/semantic_ids.json", "export_index": "x.parquet",
                   "codec": "semantic_ids_llm"}))  # fmt: skip
    main(as_flags({"import_index": "x.parquet", "codec": "semantic_ids_llm", "output_dir": "back2"}))
    assert (SemanticIds.load("back2/semantic_ids.json").codes == ids.codes).all()


@pytest.mark.parametrize("changes, says", [
    ({"matrix": None, "matrix_ids": None}, "give exactly one of --checkpoint"),
    ({"checkpoint": "x"}, "give exactly one of .* got checkpoint, matrix"),
    ({"matrix_ids": None}, "--matrix needs --matrix_ids"),
    ({"matrix": "no.npy"}, "--matrix no.npy does not exist"),
    ({"matrix": "ids.txt"}, "--matrix ids.txt could not be read"),
    ({"matrix": "flat.npy"}, r"of shape \(5,\)"),
    ({"matrix": "nan.npy"}, "embedding of item 'i3' in .* not finite"),
    ({"matrix": "short.npy"}, "has 5 rows, but --matrix_ids ids.txt names 90 items"),
    ({"matrix_ids": "twice.txt"}, "names item 'a' twice"),
    ({"matrix": None, "matrix_ids": None, "checkpoint": "nowhere"}, "nowhere is not a checkpoint"),
    ({"matrix": None, "matrix_ids": None, "encoder_model_dir": "x"}, "--encoder_model_dir needs --text_data"),
    ({"codebook_size": 91}, "--codebook_size 91 is more than the 90 items"),
    ({"codebook_size": 1}, "--codebook_size is 2 to"),
    ({"levels": 0}, "--levels is 1 to 25"),
    ({"bf16": True}, "--bf16 must be False"),
    ({"quantiser": "kmeans"}, "--quantiser is one of rq_kmeans,"),
    ({"dedup": "suffx"}, "--dedup is auto, none, suffix or reassign"),
    ({"codec": "x"}, "--codec is one of onerec,"),
    ({"codebooks": "nowhere"}, "nowhere/semantic_ids.json does not exist"),
    ({"output_dir": "ids.txt"}, "must be a directory, but ids.txt is a file"),
    ({"export_index": "x.parquet", "codec": "cb"}, "kept in a JSON file"),
    ({"deepspeed": "no.json", "quantiser": "rq_vae"}, "--deepspeed no.json does not exist"),
    ({"interaction_data": "ids.txt"}, "has no column"),
    ({"split_data": "ids.txt"}, "--split_data need --interaction_data"),
])  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_nothing(folder, changes, says, capsys):
    np.save("flat.npy", np.zeros(5, np.float32))
    np.save("short.npy", np.zeros((5, 8), np.float32))
    spoilt = np.load("items.npy")
    spoilt[3, 1] = np.nan
    np.save("nan.npy", spoilt)
    (folder / "twice.txt").write_text("a\nb\na\n")
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(SystemExit) as stop:
        build(**changes)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert re.search(says, said), said
    assert {path.name for path in folder.iterdir()} - {"results"} == before


def test_ids_are_not_overwritten_unless_told_to(folder, capsys):
    build()
    with pytest.raises(SystemExit):
        build()
    assert "already holds semantic_ids.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        build(codebooks="out", overwrite=True)
    assert "are both out" in capsys.readouterr().err
    np.save("wide.npy", np.zeros((N, 9), np.float32))
    with pytest.raises(SystemExit):
        build(codebooks="out", output_dir="more", matrix="wide.npy")
    assert "width 9, but those of --codebooks out had 8" in capsys.readouterr().err


def test_ids_of_matrix_rows_may_hold_line_breaks_and_backslashes(folder):
    """As scripts/evaluate_pixelrec.py writes them."""
    (folder / "odd.txt").write_text("a\\nb\nc\\\\nd\n e \n")
    assert item_embeddings.read_ids("odd.txt") == ["a\nb", "c\\nd", " e "]
    (folder / "list.json").write_text('["x", 7]')
    assert item_embeddings.read_ids("list.json") == ["x", "7"]


def test_rq_kmeans_plus_starts_as_balanced_k_means(folder):
    config = BuildConfig(
        matrix="items.npy", matrix_ids="ids.txt", quantiser="rq_kmeans_plus", codebook_size=8, hidden=(16,),
        kmeans_iterations=5,
    )  # fmt: skip
    assert config.learning_rate == 1e-4
    table = np.load("items.npy")
    model, network = starting_model(config, table, print)
    books, codes = rq_kmeans_balanced(table, 3, 8, 5, config.seed, print)
    with torch.no_grad():
        decoded, _, first_codes, encoded = model.eval()(torch.from_numpy(table))
    assert (encoded.numpy() == table).all()
    for level in range(3):
        assert (model.codebooks[level].numpy() == books[level]).all()
    assert network["code_width"] == 8


@pytest.mark.launch
def test_an_rq_vae_is_trained_on_the_engine_and_used_again(folder):
    flags = FLAGS | {
        "quantiser": "rq_vae", "num_train_epochs": 2, "steps_per_epoch": 10, "hidden": "16", "code_width": 4,
        "per_device_train_batch_size": 32, "logging_dir": "logs/x", "dedup": "none", "logging_steps": 5,
        "deepspeed": ROOT / "configs/ds_config_zero2.json",
    }  # fmt: skip
    result = run_command(
        [sys.executable, ROOT / "scripts/build_semantic_ids.py", *as_flags(flags)], cwd=folder,
        DS_ACCELERATOR="cpu",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "step 00020/00020" in result.stdout and "| 1 |" in result.stdout
    ids = SemanticIds.load("out/semantic_ids.json")
    (folder / "new.txt").write_text("".join(f"n{n}\n" for n in range(N)))
    again = build(matrix_ids="new.txt", codebooks="out", output_dir="more")
    assert (again.codes[N:] == ids.codes).all()
