"""A run that stopped goes on as if nothing had happened, from what is complete and belongs to it."""

import dataclasses
import json
import os

import pytest
import torch

from pixelrec_train.engine.checkpoint import read_state
from pixelrec_train.engine.manifest import MANIFEST, described, verify
from pixelrec_train.engine.optimizer_state import Stored
from pixelrec_train.engine.resume import check_same_run, checkpoint_to_resume
from pixelrec_train.engine.state import TrainState
from pixelrec_train.errors import InputError
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.run import directory as run_directory

FACTS = {"data": {"interactions": "aa", "item_text": "bb", "split": "the last two"}}


def make_checkpoint(run, name, step, config):
    directory = run / name
    directory.mkdir(parents=True)
    (directory / "weights.safetensors").write_bytes(bytes(range(100)))
    (directory / "train_state.json").write_text(json.dumps(TrainState(total_steps=200, step=step).as_dict()))
    (directory / "run.json").write_text(
        json.dumps({"config": dataclasses.asdict(config), "ranks": 2} | FACTS)
    )
    files = {p.name: described(p) for p in directory.iterdir()}
    (directory / MANIFEST).write_text(json.dumps(files))
    return directory


@pytest.fixture
def run(config_with, tmp_path):
    """A run directory with checkpoints at steps 20 and 100, and the config that resumes there."""
    config = config_with(output_dir=str(tmp_path), per_device_train_batch_size=8)
    for name, step in (("checkpoint-epoch-1", 20), ("checkpoint-step-100", 100)):
        make_checkpoint(tmp_path, name, step, config)
    return dataclasses.replace(config, resume="auto"), tmp_path


def test_auto_takes_the_newest_complete_checkpoint(run):
    config, folder = run
    make_checkpoint(folder, "checkpoint-step-120.partial", 120, config)  # killed before it had its name
    (folder / "checkpoint-step-140").mkdir()  # without a manifest
    assert checkpoint_to_resume(config.resume, config.output_dir) == folder / "checkpoint-step-100"
    assert checkpoint_to_resume(None, config.output_dir) is None
    assert checkpoint_to_resume("auto", folder / "new") is None


def test_a_checkpoint_can_be_named_if_it_is_one_of_this_run(run):
    config, folder = run
    older = dataclasses.replace(config, resume=str(folder / "checkpoint-epoch-1"))
    assert checkpoint_to_resume(older.resume, older.output_dir) == folder / "checkpoint-epoch-1"
    for wrong in (folder / "checkpoint-epoch-9", folder):
        with pytest.raises(InputError, match="no complete checkpoint in --output_dir.*--resume auto"):
            checkpoint_to_resume(wrong, folder)
    elsewhere = dataclasses.replace(older, output_dir=str(folder / "other"))
    with pytest.raises(InputError, match="no complete checkpoint in --output_dir"):
        checkpoint_to_resume(elsewhere.resume, elsewhere.output_dir)


def test_another_runs_checkpoint_is_refused_and_says_what_differs(run):
    config, folder = run
    checkpoint = checkpoint_to_resume(config.resume, config.output_dir)
    check_same_run(config, checkpoint, FACTS, 2)
    # Four ranks of four windows are the same batch; how often is logged or saved does not matter.
    harmless = {"per_device_train_batch_size": 4, "save_steps": 5, "dataloader_num_workers": 3}
    check_same_run(dataclasses.replace(config, **harmless), checkpoint, FACTS, 4)
    other_data = {"data": FACTS["data"] | {"item_text": "cc"}}
    other_split = {"data": FACTS["data"] | {"split": "rows of another.csv"}}
    for changed, facts, ranks, words in (
        ({"learning_rate": 0.5}, FACTS, 2, "--learning_rate was 0.0001, is 0.5"),
        ({"num_train_epochs": 9}, FACTS, 2, "--num_train_epochs was 5, is 9"),
        ({}, FACTS, 4, "ranks x --per_device_train_batch_size was 16, is 32"),
        ({}, other_data, 2, "the item text of the data files, or how this version reads them, changed"),
        ({}, other_split, 2, "the split of the data files, or how this version reads them, changed"),
    ):
        with pytest.raises(InputError, match=words):
            check_same_run(dataclasses.replace(config, **changed), checkpoint, facts, ranks)


def test_names_in_a_checkpoint_are_no_way_out_of_the_run_directory(run):
    """What is listed there is deleted when the limit of checkpoints is reached."""
    _, folder = run
    file = folder / "checkpoint-step-100/train_state.json"
    for wrong in (
        {"checkpoints": ["checkpoint-epoch-1/../../precious"]}, {"checkpoints": ["/precious"]},
        {"checkpoints": [7]}, {"step": "100"}, {"finish_epoch": 1},
    ):  # fmt: skip
        file.write_text(json.dumps(TrainState(total_steps=200).as_dict() | wrong))
        with pytest.raises(InputError, match="train_state.json is missing, or not of this version"):
            read_state(file.parent)


def test_a_file_that_was_not_written_with_the_checkpoint_is_named(run):
    _, folder = run
    checkpoint = folder / "checkpoint-step-100"
    (checkpoint / "eval-test").mkdir()
    (checkpoint / "eval-test/metrics.json").touch()  # what evaluate_pixelrec.py leaves is welcome
    verify(checkpoint)
    (checkpoint / "modeling_evil.py").touch()
    with pytest.raises(InputError, match="holds modeling_evil.py, which was not written with it"):
        verify(checkpoint)
    (checkpoint / "modeling_evil.py").unlink()
    (checkpoint / MANIFEST).write_text("[1]")
    with pytest.raises(InputError, match="no manifest.json that can be read"):
        verify(checkpoint)


@pytest.mark.parametrize("damage", ["flipped", "short", "missing"])
def test_a_damaged_file_is_named_before_anything_is_loaded(run, damage):
    _, folder = run
    checkpoint = folder / "checkpoint-step-100"
    verify(checkpoint)
    file = checkpoint / "weights.safetensors"
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "short" else data[:50] + b"\xff" + data[51:])
    with pytest.raises(InputError, match="is damaged: weights.safetensors missing, cut short or changed"):
        verify(checkpoint)


def test_what_was_measured_beyond_the_checkpoint_is_forgotten_and_half_directories_are_removed(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 5}\n{"step": 10}\n{"st\n{"step": 15}\n{"step": 2')
    (tmp_path / "checkpoint-epoch-3.partial/optimizer").mkdir(parents=True)
    run_directory.forget_after(tmp_path, 10)
    assert file.read_text() == '{"step": 5}\n{"step": 10}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


class Planted:
    """Runs a command where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_a_pickle_in_a_checkpoint_is_never_run(run, tmp_path, config_with):
    """Planted beside its files, and, by someone who can write a manifest too, in their place."""
    _, folder = run
    checkpoint, trace = folder / "checkpoint-step-100", tmp_path / "trace"
    (checkpoint / "optimizer").mkdir()
    torch.save(Planted(trace), checkpoint / "optimizer/zero_pp_rank_0_optim_states.pt")
    with pytest.raises(InputError, match="zero_pp_rank_0_optim_states.pt, which was not written with it"):
        verify(checkpoint)
    model = HLLMModel.starting(config_with())
    model.export(checkpoint, model.state_dict(), tmp_path)
    for name in ("hllm_head.safetensors", "user_llm/model.safetensors", "item_llm/model.safetensors"):
        kept = (checkpoint / name).read_bytes()
        torch.save(Planted(trace), checkpoint / name)
        with pytest.raises(InputError):
            HLLMModel.load(checkpoint, 24)
        (checkpoint / name).write_bytes(kept)
    torch.save(Planted(trace), checkpoint / "optimizer/rank-0.safetensors")
    with pytest.raises(InputError, match="optimizer is not of this version"):
        Stored(checkpoint)
    assert not trace.exists()
    torch.load(checkpoint / "optimizer/zero_pp_rank_0_optim_states.pt", weights_only=False)
    assert trace.exists()  # it would have been seen
