"""scripts/build_samples.py, from two tables to a directory that training reads."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from conftest import ROOT, as_flags, run_command

from pixelrec_train.commands import build_samples
from pixelrec_train.commands.build_samples import main
from pixelrec_train.config import tasks
from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.samples import writing
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.samples.rows import row_counts, samples
from pixelrec_train.data.views import build
from pixelrec_train.data.views.families import FAMILIES, VIEWS
from pixelrec_train.data.views.view import Asked
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds

SIZES = (32, 32)


@pytest.fixture
def folder(demo, demo_config, tmp_path, monkeypatch):
    """The current directory, with semantic ids of the demo and a column of labels."""
    monkeypatch.chdir(tmp_path)
    item_ids = read_interactions(demo_config).item_ids
    codes = np.stack(np.unravel_index(np.arange(len(item_ids)), SIZES), 1).astype(np.int32)
    SemanticIds(item_ids, codes, SIZES).save("sid.json")
    head, *lines = (demo / "interactions.csv").read_text().splitlines()
    rows = [f"{line},{('like', 'skip')[n % 2]}" for n, line in enumerate(lines)]
    Path("log.csv").write_text("\n".join([f"{head},action", *rows]))
    Path("items.csv").write_bytes((demo / "items.csv").read_bytes())
    return tmp_path


def flags(**changes):
    good = {
        "interaction_data": "log.csv", "text_data": "items.csv", "text_keys": "title,tag,description",
        "semantic_ids": "sid.json", "output_dir": "made/train", "cache_dir": "cache",
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not None}


def make(**changes):
    main(as_flags(flags(**changes)))
    return Path(flags(**changes)["output_dir"])


def read(directory):
    """All samples of a directory, by way of dataset.json."""
    settings = json.loads((directory / "dataset.json").read_text())
    (source,) = sources_of(settings["sources"], "--dataset_config", directory)
    found = [
        sample for file in source.files for group in range(len(row_counts(file)))
        for _, sample in samples(file, group)
    ]  # fmt: skip
    return settings, source.files, found


def test_every_task_lands_in_files_that_training_reads(folder, capsys):
    directory = make(
        task=",".join(tasks.TASKS), label_column="action", positive_labels="like", rows_per_file=100
    )
    said, facts = capsys.readouterr().out, json.loads((directory / "facts.json").read_text())
    settings, files, found = read(directory)
    assert Counter(sample.source for sample in found) == facts["samples"]
    assert list(facts["samples"]) == list(tasks.TASKS) and min(facts["samples"].values()) >= 20
    for task, count in facts["samples"].items():
        assert f"{task:<35}{count:>12,} samples of train, {facts['forms'][task]}" in said
    for left in facts["left_out"]:
        assert f"{left['samples']:>12,} left out: {left['why']}" in said
    assert {left["task"] for left in facts["left_out"]} >= {"rec_reason"}
    number = -(-len(found) // 100)
    names = [f"part-{n:05d}-of-{number:05d}.parquet" for n in range(number)]
    assert [file.name for file in files] == names == json.loads((directory / "file_list.json").read_text())
    assert sorted(p.name for p in directory.iterdir()) == sorted(
        [*names, "file_list.json", "dataset.json", "facts.json"]
    )
    assert [sum(row_counts(file)) for file in files[:-1]] == [100] * (number - 1)
    assert settings == {
        "name": "chat_completion_parquet", "sources": "file_list.json", "max_length": 32768,
        "only_assistant_loss": True, "add_think_pattern": True,
    }  # fmt: skip


def test_the_columns_are_openonerecs(folder):
    directory = make(task="video_rec,user_profile")
    table = pyarrow.parquet.read_table(next(directory.glob("*.parquet")))
    assert table.column_names == ["uuid", "source", "metadata", "messages", "segments"]
    assert all(field.type == "string" for field in table.schema)
    assert (
        pyarrow.parquet.ParquetFile(next(directory.glob("*.parquet")))
        .metadata.row_group(0)
        .column(0)
        .compression
        == "SNAPPY"
    )
    first, *_, last = table.to_pylist()
    assert [turn["role"] for turn in json.loads(first["messages"])] == ["system", "user", "assistant"]
    assert first["segments"] is None and last["messages"] is None
    (segment,) = json.loads(last["segments"])
    assert segment["type"] == "text" and segment["text"]
    assert set(json.loads(first["metadata"])) == {"user_id", "history_items", "target_item_ids"}


def test_what_is_written_is_what_the_views_made(folder):
    config = build_samples.parse_args(build_samples.BuildSamplesConfig, as_flags(flags()))
    views = build.views_of(["video_rec", "item_understand"], "train", None, {"texts"})
    asked = Asked(None, 512, 10, 1, True)
    plan = build.plan(views, asked, config, None, "sid.json", "onerec", "train")
    made = [sample for sample, _ in plan.samples(*build.counters())]
    assert read(make(task="video_rec,item_understand"))[2] == made


def test_documents_alone_have_no_question_to_think_about(folder):
    settings, _, found = read(make(form="segments", max_length=99))
    assert (settings["add_think_pattern"], settings["max_length"]) == (False, 99)
    assert all(sample.messages is None for sample in found)
    assert read(make(form="segments", add_think_pattern=True, output_dir="b"))[0]["add_think_pattern"] is True


@pytest.mark.parametrize("codec", ["onerec", "minionerec"])
def test_dataset_json_has_the_vocabulary_of_the_model(folder, codec):
    vocabulary = ItemicVocabulary(codec, SIZES, 500, 1024, "mean", 0, "lm", "")
    Path("llm").mkdir()
    vocabulary.save("llm")
    settings, _, found = read(make(model_dir="llm"))
    assert settings["base_model_dir"] == str(folder / "llm")
    assert settings["itemic_id_range"] == [500, 565 if codec == "onerec" else 563]
    text = found[0].messages[1]["content"]
    assert CODECS[codec].text((0, 0), SIZES) in text and ("<|sid_begin|>" in text) == (codec == "onerec")


def test_the_same_command_makes_the_same_files_and_replaces_its_own_alone(folder, capsys):
    first = {path.name: path.read_bytes() for path in make().iterdir()}
    again = make(overwrite=True)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == first
    make(overwrite=True, rows_per_file=50)
    assert len(list(again.glob("*.parquet"))) > len([name for name in first if name.endswith("parquet")])
    (again / "facts.json").unlink()
    with pytest.raises(SystemExit):
        make(overwrite=True)
    assert "no build wrote it" in capsys.readouterr().err and list(again.glob("*.parquet"))


def test_a_build_that_is_stopped_leaves_what_was_there(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in make().iterdir()}

    def full(*anything):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write_json", full)  # the files are written by then
    with pytest.raises(SystemExit) as stop:
        make(overwrite=True, rows_per_file=10)
    assert stop.value.code == 130
    assert {path.name: path.read_bytes() for path in Path("made/train").iterdir()} == before
    assert [path.name for path in Path("made").iterdir()] == ["train"]


def test_labels_are_read_only_where_they_are_asked_for(folder):
    make(task="label_cond_rec", label_column="action")
    make(output_dir="made/other")
    arrays = [sorted(p.name for p in cache.glob("*.npy")) for cache in Path("cache").iterdir()]
    assert sorted("labels.npy" in names for names in arrays) == [False, True]


def test_items_that_share_an_id_are_told(folder, capsys):
    ids = SemanticIds.load("sid.json")
    SemanticIds(ids.item_ids, ids.codes // 2, SIZES).save("sid.json")
    make()
    assert "items share their semantic id with another" in capsys.readouterr().out


def test_the_command_names_the_tasks_there_are():
    names = [tuple(view.task for view in family.VIEWS) for family in FAMILIES]
    assert names == list(tasks.FAMILIES.values()) and tuple(VIEWS) == tasks.TASKS


def test_the_script_runs(folder):
    result = run_command(
        [sys.executable, ROOT / "scripts/build_samples.py", *as_flags(flags(split="test"))], cwd=folder
    )
    assert result.returncode == 0, result.stderr
    assert (
        "samples of test, chat\nsplit: everybody's last two items are held out\nmade made/train: 1 files"
        in result.stdout
    )
