"""A checkpoint's README.md is true, harmless and runs; TensorBoard's readers find flags, figures, items."""

import dataclasses
import json
import re
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import inputs_of
from good_folder import GENERATIVE, flags_of, shared_flags, write_good_folder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from torch.utils.tensorboard import SummaryWriter

from pixelrec_train.config import GenerativeConfig, LoopFlags
from pixelrec_train.engine.manifest import BEST, link_tree, verify
from pixelrec_train.engine.state import TrainState
from pixelrec_train.errors import InputError
from pixelrec_train.run import board, model_card

STATE = TrainState(total_steps=300, step=120)
TABLE = (
    "| all users (2), % | recall@10 |\n|---|---:|\n| two_tower | 9.00 ± 1.00 |\n\nrows of [a](b).csv, <b>\n"
)


@pytest.fixture(scope="module")
def folder(demo, demo_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    write_good_folder(folder, demo, demo_config)
    return folder


def python_of(card):
    return re.findall(r"```python\n(.*?)```", card, re.S)


def test_the_lines_of_the_card_load_the_model_and_the_checkpoint_stays_whole(
    folder, demo_config, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    flags = dataclasses.replace(flags_of(demo_config), output_dir="done")
    (folder / "done/table.md").write_text(TABLE)
    model_card.conclude(flags, BEST)
    verify("done/best_model")
    card = (folder / "done/best_model/README.md").read_text()
    assert "| two_tower | 9.00 ± 1.00 |\n" in card and r"of \[a\](b).csv, \<b\>" in card
    (folder / "lines.py").write_text(python_of(card)[0])
    runpy.run_path(str(folder / "lines.py"))
    said = capsys.readouterr().out
    assert said.count("Recommendation(item_id=") == 5
    assert "sentence_transformers" in python_of(card)[1]
    assert f"--checkpoint {flags.output_dir}/best_model" in card  # of scripts/export.py
    marks = inputs_of(flags).facts()["data"]
    assert f"| fingerprint of interactions | {marks['interactions']} |" in card
    assert rf"| --max\_seq\_length | {flags.max_seq_length} | 11 |" in card and "--seed" not in card
    (folder / "done/best_model/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds notes.txt, which was not written with it"):
        verify("done/best_model")
    (folder / "done/best_model/notes.txt").unlink()


def test_a_card_of_the_generative_head_and_of_others(folder, demo_config, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    config = flags_of(demo_config)
    flags = GenerativeConfig(**shared_flags(dataclasses.replace(config, output_dir="told")), **GENERATIVE)
    card = model_card.card(flags, "told/best_model", BEST, ["nothing yet"])
    assert "a generative recommender" in card and 'Recommender.load("told/best_model")' in card
    assert 'AutoModelForCausalLM.from_pretrained("told/best_model/llm")' in card and "nothing yet" in card
    (tmp_path / "run.json").write_text('{"config": {}}')
    assert "# x: a model\n" in model_card.card(LoopFlags(output_dir="x"), tmp_path, BEST, [])


def test_names_of_data_are_no_markdown_and_no_html(folder, demo_config, monkeypatch):
    monkeypatch.chdir(folder)
    evil = "x|y\n# *a* <script>[z](http://w)`$"
    flags = dataclasses.replace(flags_of(demo_config), output_dir="done", interaction_data=evil)
    card = model_card.card(flags, "done/best_model", BEST, model_card.judged_at_the_end(f"{TABLE}{evil}"))
    shown = r"x\|y \# \*a\* \<script\>\[z\](http://w)\`\$"
    assert f"| --interaction\\_data | {shown} |" in card
    assert r"\# \*a\* \<script\>" in card and "\n# *a*" not in card and not re.search(r"(?<!\\)<", card)
    assert json.loads(card.split("\ntags: ")[1].splitlines()[0]) == ["recommendation", "two-tower", "hllm"]


def test_figures_before_the_end_are_of_this_very_step():
    text = "\n".join(model_card.judged_so_far((120, {"ndcg@10": 0.25, "users": 7}), STATE))
    assert "after step 120 of 300; its run had not ended" in text and "| ndcg@10 | 0.2500 |" in text
    for judged in (None, (100, {"ndcg@10": 0.25})):
        text = "\n".join(model_card.judged_so_far(judged, STATE))
        assert "It was not judged there." in text and "0.25" not in text


def test_best_models_card_names_best_model_and_the_checkpoints_its_own_place(tmp_path):
    run, checkpoint = tmp_path / "run", tmp_path / "run/checkpoint-epoch-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.json").write_text(json.dumps({"config": {"output_dir": "results/x"}}))
    (checkpoint / "README.md").write_text("load results/x/checkpoint-epoch-3, of checkpoint-epoch-3")
    (checkpoint / "weights").write_text("w")
    link_tree(checkpoint, run / BEST)
    assert (run / BEST / "README.md").read_text() == "load results/x/best_model, of checkpoint-epoch-3"
    assert "results/x/checkpoint-epoch-3" in (checkpoint / "README.md").read_text()
    assert (run / BEST / "weights").samefile(checkpoint / "weights")


def test_tensorboards_own_readers_find_the_flags_beside_the_last_figures(tmp_path):
    flags = LoopFlags(output_dir="x", learning_rate=3e-4, bf16=False)
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("train/loss", 2.5, 7)
        row = {"recall@10": 0.125, "users": 40, "recall@10_ci95": [0, 1]}
        board.add_hparams(writer, flags, row, step=7)
    assert len(list(tmp_path.iterdir())) == 1  # beside the curves
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("final/recall@10")] == [(7, 0.125)]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(7, 2.5)]
    found = events.PluginTagToContent("hparams")
    started = metadata.parse_session_start_info_plugin_data(found[metadata.SESSION_START_INFO_TAG])
    assert started.hparams["learning_rate"].number_value == 3e-4
    assert started.hparams["bf16"].number_value == 0 and started.hparams["max_steps"].string_value == "None"
    assert (
        "output_dir" not in started.hparams
        or not flags.__dataclass_fields__["output_dir"].metadata["may_differ"]
    )
    experiment = metadata.parse_experiment_plugin_data(found[metadata.EXPERIMENT_TAG])
    assert {metric.name.tag for metric in experiment.metric_infos} == {"final/recall@10", "final/users"}


def test_the_projector_plugin_finds_the_items_and_what_stands_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "MOST_ITEMS", 50)
    (tmp_path / "logs/demo").mkdir(parents=True)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard/demo").symlink_to("../logs/demo")  # as session makes it
    vectors = np.random.default_rng(0).normal(size=(80, 3)).astype("f4")
    labels = {"item_id": [f"i{n}" for n in range(80)], "title": ["a\ttab\nand more", None] * 40}
    board.write_projector(tmp_path / "logs/demo", vectors, labels, seed=1)
    runs = SimpleNamespace(list_runs=lambda ctx, experiment_id: [SimpleNamespace(run_name="demo")])
    plugin = ProjectorPlugin(SimpleNamespace(data_provider=runs, logdir=str(tmp_path / "tensorboard")))
    plugin._determine_is_active()
    assert plugin._is_active
    (found,) = plugin._configs["demo"].embeddings
    assert found.tensor_name == "items" and list(found.tensor_shape) == [50, 3]
    head, *rows = (tmp_path / "tensorboard/demo" / found.metadata_path).read_text().splitlines()
    assert head == "item_id\ttitle" and len(rows) == 50
    read = plugin.tensor_cache.get(("demo", "items"))
    numbers = [int(row.split("\t")[0][1:]) for row in rows]
    np.testing.assert_allclose(read, vectors[numbers], rtol=1e-4)
    assert {row.split("\t", 1)[1] for row in rows} == {"a tab and more", ""} and sorted(numbers) == numbers
    board.forget(tmp_path / "logs/demo")
    assert not list((tmp_path / "logs/demo").iterdir())


def test_wide_vectors_are_fewer(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "MOST_NUMBERS", 100)
    board.write_projector(tmp_path, np.zeros((30, 40), "f4"), {"item_id": range(30)}, seed=1)
    assert len((tmp_path / board.VECTORS).read_text().splitlines()) == 2
