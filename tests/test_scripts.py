"""The scripts: what people set is what is run, from where they stand, and what is not read is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, recording_python, run_command

from pixelrec_train.machine.pins import Pin
from pixelrec_train.run import resources

DATA = {"INTERACTION_DATA": "a.csv", "TEXT_DATA": "b.csv"}
TOWERS = {"ITEM_MODEL_DIR": "i", "USER_MODEL_DIR": "u"}


def run(script, folder, *arguments, **environment):
    """(what it said, the command lines that it ran) of a script, standing in `folder`."""
    python, commands = recording_python(folder)
    result = run_command(["bash", ROOT / script, *arguments], cwd=folder, PYTHON=python, **environment)
    return result, commands() if (folder / "record").exists() else []


def flags_of(command):
    return dict(zip(command, command[1:], strict=False))


def two_tower(folder, *arguments, **environment):
    result, commands = run("scripts/run_train_pixelrec.sh", folder, *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return result, commands[-1]


def test_what_is_not_set_is_left_to_the_package(tmp_path):
    _, command = two_tower(tmp_path, **DATA, **TOWERS)
    flags = [
        word for word in command[command.index(f"{ROOT}/scripts/train_pixelrec.py") :] if word[:2] == "--"
    ]
    machine = {"--bf16", "--dataloader_num_workers"}  # follow from CPUs and cores
    assert set(flags) - machine == {
        "--interaction_data", "--text_data", "--item_model_dir", "--user_model_dir",
        "--output_dir", "--logging_dir",
    }  # fmt: skip


def test_the_names_of_the_documents_users_are_honoured(tmp_path):
    names = {"BATCH_SIZE": "8", "EPOCHS": "1", "LEARNING_RATE": "3e-4", "MAX_SEQ_LENGTH": "9",
             "WARMUP_RATIO": "0.2", "MAX_TEXT_LENGTH": "20", "TEXT_KEYS": "title",
             "NUM_NEGATIVES": "64"}  # fmt: skip
    _, command = two_tower(tmp_path, **DATA, **TOWERS, **names)
    flags = flags_of(command)
    named = {"BATCH_SIZE": "per_device_train_batch_size", "EPOCHS": "num_train_epochs"}
    for name, value in names.items():
        assert flags[f"--{named.get(name, name.lower())}"] == value


def test_the_generative_script_honours_them_too(tmp_path):
    environment = DATA | {"TWO_TOWER": "t", "LLM_DIR": "l", "BATCH_SIZE": "8", "EPOCHS": "2", "HOSTFILE": ""}
    _, commands = run("scripts/run_train_generative.sh", tmp_path, **environment)
    first, second = (flags_of(c) for c in commands if f"{ROOT}/scripts/train_generative.py" in c)
    assert first["--per_device_train_batch_size"] == second["--per_device_train_batch_size"] == "8"
    assert (first["--num_train_epochs"], second["--num_train_epochs"]) == ("1", "2")
    assert os.readlink(tmp_path / "pixelrec_train.log") == "logs/generative_train.log"


@pytest.mark.parametrize("script", ["run_train_pixelrec", "run_train_generative"])
@pytest.mark.parametrize(
    "environment, words",
    [
        ({"BATCH_SIZE": "8", "PER_DEVICE_TRAIN_BATCH_SIZE": "4"}, "two names of one setting with two values"),
        ({"EPOCHS": "8", "NUM_TRAIN_EPOCHS": "4"}, "two names of one setting with two values"),
        ({"INTERACTION_DATA": "x.csv"}, "INTERACTION_DATA and TEXT_DATA belong together"),
        ({"NUM_GPUS": "two"}, "NUM_GPUS must be a number of ranks"),
        ({"HOSTFILE": "no_such_file"}, "HOSTFILE no_such_file does not exist"),
        ({"PIXELREC_PYTHON": "mine"}, "PIXELREC_PYTHON is keep"),
    ],
)
def test_a_contradiction_is_one_sentence_before_anything_runs(tmp_path, script, environment, words):
    result, commands = run(f"scripts/{script}.sh", tmp_path, **environment)
    assert result.returncode == 2 and words in result.stderr and not commands
    assert result.stderr.count("\n") == 1


def test_a_tower_beside_a_trained_two_tower_model_is_refused(tmp_path):
    result, commands = run("scripts/run_train_generative.sh", tmp_path, TWO_TOWER="t", **TOWERS)
    assert (
        result.returncode == 2
        and "ITEM_MODEL_DIR is set, but with TWO_TOWER" in result.stderr
        and not commands
    )


def test_a_name_of_other_scripts_is_a_warning(tmp_path):
    result, _ = two_tower(tmp_path, RESULTS_DIR="somewhere", LR="1")
    assert "warning: RESULTS_DIR is set and not read here; set OUTPUT_DIR instead." in result.stderr
    assert "set LEARNING_RATE instead" in result.stderr


def test_the_log_is_found_where_people_look_for_it(tmp_path):
    two_tower(tmp_path, "--logging_dir", "elsewhere/run", **DATA, **TOWERS)
    assert os.readlink(tmp_path / "pixelrec_train.log") == "elsewhere/run_train.log"
    assert (tmp_path / "pixelrec_train.log").is_file()  # so that tail -f can begin
    (tmp_path / "pixelrec_train.log").unlink()
    (tmp_path / "pixelrec_train.log").write_text("mine")
    two_tower(tmp_path, **DATA, **TOWERS)
    assert (tmp_path / "pixelrec_train.log").read_text() == "mine"


@pytest.mark.parametrize("script", ["run_train_pixelrec", "run_train_generative"])
def test_both_scripts_run_in_the_background(tmp_path, script):
    result, _ = run(f"scripts/{script}.sh", tmp_path, BACKGROUND="1", **DATA)
    assert result.returncode == 0 and "in the background, process" in result.stdout
    assert "tail -f logs/" in result.stdout


def test_several_machines_are_those_of_the_hostfile(tmp_path):
    (tmp_path / "hosts").write_text("one slots=4\ntwo slots=2\n")
    _, command = two_tower(tmp_path, HOSTFILE="hosts", **DATA, **TOWERS)
    assert flags_of(command)["--hostfile"] == "hosts" and "--num_gpus" not in command
    plan = next(c for c in recording_python(tmp_path)[1]() if "--dry_run" in c)
    assert flags_of(plan)["--dry_run"] == "6"


def test_from_the_package_folder_the_forms_of_the_document_work(tmp_path):
    folder = ROOT / "pixelrec_train"
    for script in ("run_train_pixelrec.sh", "run_train_generative.sh"):
        result = run_command(["bash", f"scripts/{script}"], cwd=folder, NUM_GPUS="two")
        assert result.returncode == 2 and "NUM_GPUS must be" in result.stderr
    for script in ("train_pixelrec.py", "train_generative.py"):
        result = run_command([sys.executable, f"scripts/{script}", "--dry_rum", "2"], cwd=folder)
        assert result.returncode == 2 and "Did you mean --dry_run?" in result.stderr


@pytest.mark.parametrize(
    "script", sorted(p.name for p in (ROOT / "scripts").glob("*.py") if p.stem != "command")
)
def test_every_script_is_the_command_of_its_name_from_anywhere(tmp_path, script):
    result = run_command([sys.executable, ROOT / "scripts" / script, "--help"], cwd=tmp_path)
    assert result.returncode == 0 and f"usage: {Path(script).stem}" in result.stdout.replace("\n", " ")


def prepared(python, **environment):
    command = 'source scripts/prepare_python.sh; echo "PYTHON=$PYTHON"'
    return subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"PYTHON": str(python)} | environment)  # fmt: skip


def test_a_python_with_compatible_packages_is_used_as_it_is(tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/bash\nif [ "$1" = -m ]; then echo "numpy 2.1.0, tested with 2.2.6"; fi\n')
    stub.chmod(0o755)
    result = prepared(stub)
    assert f"setup: {stub} is used as it is (numpy 2.1.0, tested with 2.2.6)" in result.stdout
    assert f"PYTHON={stub}" in result.stdout


def test_keep_uses_the_current_python_whatever_it_has(tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/bash\n[ "$1" = -c ]\n')
    stub.chmod(0o755)
    assert prepared(stub, PIXELREC_PYTHON="keep").stdout == f"PYTHON={stub}\n"


def test_a_pin_takes_what_is_between_floor_and_ceiling():
    pin = Pin("torch", "2.13.0", "2.8", "3", True)
    taken = {version: pin.takes(version) for version in ("2.7.1", "2.8.0", "2.10.0rc1", "2.13.0", "3.0.0")}
    assert taken == {"2.7.1": False, "2.8.0": True, "2.10.0rc1": True, "2.13.0": True, "3.0.0": False}
    assert not Pin("ruff", "0.17.6", None, None, False).takes("0.17.7")


@pytest.mark.parametrize("variable, value", [("CUDA_VISIBLE_DEVICES", ""), ("DS_ACCELERATOR", "cpu")])
def test_gpus_that_a_run_would_not_use_do_not_count(monkeypatch, variable, value):
    monkeypatch.setattr(resources, "has_nvidia_gpu", lambda: True)
    monkeypatch.setenv(variable, value)
    assert resources.count_gpus() == 0
