"""step120/global_step120/: found, gone on from, kept and removed as checkpoint-step-120/ is."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, as_flags, events, run_command
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixelrec_train.engine import manifest
from pixelrec_train.engine.resume import checkpoint_to_resume
from pixelrec_train.engine.state import TrainState
from pixelrec_train.errors import InputError
from pixelrec_train.run import checkpoints
from pixelrec_train.run import directory as run_directory
from pixelrec_train.trainings.compare_models import names


def write(run, name, step):
    """A whole checkpoint of a run."""
    place = checkpoints.inside(Path(run) / name)
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"w")
    (place / "train_state.json").write_text(json.dumps(TrainState(total_steps=200, step=step).as_dict()))
    manifest.write_manifest(place, {})
    return place


def write_theirs(run, name="step70"):
    """What OpenOneRec's own training leaves."""
    place = checkpoints.inside(Path(run) / name)
    place.mkdir(parents=True)
    (place / ".metadata").write_bytes(b"pickle")
    (Path(run) / "latest").write_text(name)
    return place


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


@pytest.mark.parametrize(
    "layout, batch, name, place",
    [
        ("plain", 0, "checkpoint-epoch-2", "checkpoint-epoch-2"),
        ("plain", 7, "checkpoint-step-40", "checkpoint-step-40"),
        ("global_step", 0, "step40", "step40/global_step40"),
        ("global_step", 7, "step40", "step40/global_step40"),
    ],
)
def test_a_checkpoint_has_one_name_and_one_place(tmp_path, layout, batch, name, place):
    state = TrainState(total_steps=99, step=40, epoch=2, batch=batch)
    assert checkpoints.name_of(state, layout) == name
    assert checkpoints.inside(tmp_path / name) == tmp_path / place
    assert checkpoints.run_of(tmp_path / place) == tmp_path
    assert not checkpoints.is_whole(tmp_path / place)
    write(tmp_path, name, 40)
    assert checkpoints.is_whole(tmp_path / place) and checkpoints.whole_ones(tmp_path) == [tmp_path / place]


def test_auto_takes_the_newest_of_either_layout_and_none_that_is_not_whole(tmp_path):
    write(tmp_path, "checkpoint-epoch-1", 20)
    newest = write(tmp_path, "step60", 60)
    write(tmp_path, "step9", 9)
    write(tmp_path, "step80.partial", 80)
    write_theirs(tmp_path)
    (tmp_path / "step90").mkdir()
    (tmp_path / "step95").touch()
    assert checkpoint_to_resume("auto", tmp_path) == newest == tmp_path / "step60/global_step60"
    for name in ("step9", "step9/global_step9"):
        assert checkpoint_to_resume(tmp_path / name, tmp_path) == tmp_path / "step9/global_step9"
    for name in ("step70", "step80.partial", "step90", "step95", "step9/global_step60"):
        with pytest.raises(InputError, match=f"--resume .*{name} is no complete checkpoint in --output_dir"):
            checkpoint_to_resume(tmp_path / name, tmp_path)
    with pytest.raises(InputError, match="no complete checkpoint in --output_dir"):
        checkpoint_to_resume(tmp_path / "step9", tmp_path / "other")


def test_overwriting_removes_the_steps_that_a_run_wrote_and_nothing_else(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for name, step in (("step5", 5), ("step60", 60), ("checkpoint-epoch-1", 20)):
        write(run, name, step)
    (run / "step60/notes.txt").touch()  # people's own
    write(elsewhere, "step50", 50)
    (run / "step50").symlink_to(elsewhere / "step50")
    write_theirs(run, "step70")
    (run / "latest").write_text("step60\n")
    (run / "stepping").mkdir()
    run_directory.clear(run)
    left = ["step50", "step60", "step60/notes.txt", "step70", "step70/global_step70",
            "step70/global_step70/.metadata", "stepping"]  # fmt: skip
    assert everything(run) == left and checkpoints.is_whole(elsewhere / "step50/global_step50")
    (run / "latest").write_text("step70")  # theirs
    run_directory.clear(run)
    assert everything(run) == ["latest", *left]


def test_a_run_does_not_begin_where_something_else_has_the_name_of_its_checkpoints(tmp_path):
    write(tmp_path, "step9", 9)
    (tmp_path / "step10").mkdir()  # nothing is in the way there
    checkpoints.check_steps_free(tmp_path)
    write_theirs(tmp_path)
    with pytest.raises(
        InputError, match="holds step70, which no run of ours wrote.*Choose another directory"
    ):
        checkpoints.check_steps_free(tmp_path)
    shutil.rmtree(tmp_path / "step70")
    (tmp_path / "step8").symlink_to(tmp_path / "step9")
    with pytest.raises(InputError, match="holds step8, which no run"):
        checkpoints.check_steps_free(tmp_path)


def test_what_no_run_wrote_is_never_taken_away(tmp_path):
    theirs = write_theirs(tmp_path)
    with pytest.raises(OSError, match="step70 is there, and no run wrote it"):
        checkpoints.take_away(tmp_path / "step70")
    assert (theirs / ".metadata").is_file()
    write(tmp_path, "step9", 9)
    (tmp_path / "step9/notes.txt").touch()
    checkpoints.take_away(tmp_path / "step9")
    checkpoints.take_away(tmp_path / "step10")  # not there
    assert everything(tmp_path / "step9") == ["notes.txt"]


def test_a_save_comes_to_lie_beside_peoples_own_files_and_over_none_of_another_program(tmp_path):
    for name in ("step9", "step9.partial"):
        write(tmp_path, name, 9)
    (tmp_path / "step9/notes.txt").touch()
    (tmp_path / "step9.partial/global_step9/weights").write_bytes(b"new")
    manifest.put_in_place(tmp_path / "step9.partial", tmp_path / "step9", is_best=True)
    assert (tmp_path / "step9/global_step9/weights").read_bytes() == b"new"
    assert (tmp_path / "best_model/weights").samefile(tmp_path / "step9/global_step9/weights")
    assert {p.name for p in tmp_path.iterdir()} == {"step9", "best_model"}
    assert (tmp_path / "step9/notes.txt").is_file()
    theirs, ours = write_theirs(tmp_path), write(tmp_path, "step70.partial", 70)
    with pytest.raises(OSError, match="step70 is there, and no run wrote it"):
        manifest.put_in_place(ours.parent, tmp_path / "step70", is_best=True)
    assert (theirs / ".metadata").is_file() and (tmp_path / "best_model/weights").read_bytes() == b"new"


def test_a_comparison_names_the_run_of_a_checkpoint_of_either_layout(tmp_path):
    for run, name in (("a", "step9"), ("b", "best_model")):
        write(tmp_path / run, name, 9)
    places = [str(tmp_path / "a/step9/global_step9"), str(tmp_path / "b/best_model")]
    assert names(places) == dict(zip(places, "ab", strict=True))


def test_a_path_inside_a_step_of_a_run_is_a_part_of_it(tmp_path):
    llm = write(tmp_path, "step9", 9) / "llm"
    theirs = write_theirs(tmp_path)
    assert run_directory.is_part(llm, tmp_path) and not run_directory.is_part(theirs, tmp_path)
    with pytest.raises(InputError, match="--model_dir .*llm lies in --output_dir"):
        run_directory.check_kept(tmp_path, model_dir=str(llm))


def test_a_conversion_inside_a_checkpoint_does_not_make_it_another(tmp_path):
    place = write(tmp_path, "step9", 9)
    (place / "converted").mkdir()
    (place / "converted/model.safetensors").touch()
    manifest.verify(place)
    (place / "converted.py").touch()
    with pytest.raises(InputError, match="holds converted.py, which was not written with it"):
        manifest.verify(place)


@pytest.fixture(scope="module")
def trained(demo_config, tmp_path_factory):
    """Six steps of the command line on one rank, each second one saved, two checkpoints kept."""
    folder = tmp_path_factory.mktemp("layout")
    flags = as_flags(
        demo_config, checkpoint_layout="global_step", max_steps=6, save_steps=2, save_total_limit=2,
        logging_steps=1, output_dir=folder / "run", logging_dir=folder / "logs/run", dry_run="None",
    )  # fmt: skip
    return folder, flags, train(flags)


def train(flags, *more):
    return run_command([sys.executable, ROOT / "scripts/train_pixelrec.py", *flags, *more])


def weights(checkpoint):
    return {
        f"{file.relative_to(checkpoint)}: {name}": tensor
        for file in checkpoint.rglob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


@pytest.mark.launch
def test_a_run_keeps_its_newest_steps_and_best_model_and_says_which_is_the_latest(trained):
    folder, _, result = trained
    assert result.returncode == 0, result.stdout + result.stderr
    run = folder / "run"
    assert sorted(p.name for p in run.glob("*step*")) == ["step4", "step6"]
    assert (run / "latest").read_text() == "step6" and not list(run.glob("*.partial"))
    place = run / "step6/global_step6"
    assert {p.name for p in place.iterdir()} == {
        "item_llm", "user_llm", "optimizer", "hllm_head.safetensors", "train_state.json", "run.json",
        "manifest.json", "README.md",
    }  # fmt: skip
    manifest.verify(place)
    assert (run / "best_model/manifest.json").samefile(place / "manifest.json")
    (best, own), table = (
        ((p / "README.md").read_text() for p in (run / "best_model", place)),
        run / "table.md",
    )
    assert table.read_text().splitlines()[0] in best and f"{run}/best_model" in best
    assert (
        "after step 6 of 6; its run had not ended" in own and f"{place}" in own and "| valid\\_loss | " in own
    )
    (board,) = (folder / "logs/run").glob("*/projector_config.pbtxt")
    events = EventAccumulator(str(board.parent)).Reload()
    row = json.loads((run / "table.json").read_text())["two_tower"]
    assert events.Scalars("final/ndcg@10")[-1].value == pytest.approx(row["ndcg@10"])
    assert f"| {place} |" in result.stdout


@pytest.mark.launch
def test_a_run_that_was_cut_short_goes_on_from_a_step_to_the_bit(trained, tmp_path):
    folder, flags, _ = trained
    run, again = folder / "run", tmp_path / "run"
    shutil.copytree(run, again)
    shutil.rmtree(again / "step6")
    (again / "table.json").unlink()
    result = train(flags, "--output_dir", again, "--logging_dir", tmp_path / "logs/run", "--resume", "auto")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"resumed from {again / 'step4/global_step4'}" in result.stdout
    before, after = (weights(r / "step6/global_step6") for r in (run, again))
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    losses = [[(e["step"], e["loss"], e["lr"]) for e in events(r, "step")] for r in (run, again)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    assert (again / "latest").read_text() == "step6"
