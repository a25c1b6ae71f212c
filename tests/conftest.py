"""What tests share: a tiny dataset, tiny towers, and a way to start real ranks."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import forks
import pytest
import torch

from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.config import TrainConfig
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.item_text import Reader
from pixelrec_train.data.synthetic import write_demo
from pixelrec_train.model.tiny import write_towers

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"  # a directory that is missing might be a name in the hub


LONGEST = (
    "test_readme.py",
    "test_launch.py",
)  # minutes; begun first, so that no worker ends long after others


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # in a worker: the one that has started the workers did this
        config.forks = forks.start()


def pytest_unconfigure(config):
    if hasattr(config, "forks"):
        forks.end(config.forks)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A folder with interactions.csv, items.csv (120 users of the synthetic site) and towers/."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder / "interactions.csv", folder / "items.csv", users=120, seed=1)
    write_towers(all_text(folder / "items.csv"), folder / "towers", hidden_size=32, vocab_size=600)
    return folder


@pytest.fixture(scope="session")
def demo_config(demo):
    """A TrainConfig over the demo: small, fp32, nothing written outside the folder."""
    return TrainConfig(
        interaction_data=str(demo / "interactions.csv"),
        text_data=str(demo / "items.csv"),
        text_keys=("title", "tag", "description"),
        item_model_dir=str(demo / "towers/item_llm"),
        user_model_dir=str(demo / "towers/user_llm"),
        max_seq_length=6,
        item_prompt="",
        max_text_length=24,
        bf16=False,
        cache_dir=str(demo / "cache"),
        output_dir=str(demo / "run"),
        logging_dir=str(demo / "logs/run"),
        dataloader_num_workers=0,
        gradient_checkpointing=False,
    )


@pytest.fixture
def config_with(demo_config):
    """config_with(num_negatives=7) -> the demo's config with some flags changed."""
    return lambda **changes: replace(demo_config, **changes)


def inputs_of(config):
    """What the towers of a TrainConfig read."""
    reader = Reader.of(config, config.item_dir, config.trust_remote_code)
    return read_inputs(config, config, reader, config.time_features)


def as_flags(config, **changes):
    """A config (or a dict of flags) as command-line arguments."""
    values = (config if isinstance(config, dict) else vars(config)) | changes
    text = {k: ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in values.items()}
    return [part for name, value in text.items() if name != "local_rank" for part in (f"--{name}", value)]


def run_command(command, cwd=ROOT, timeout=400, afresh=False, **environment):
    """Run to the end and return the CompletedProcess; the environment is a newcomer's: one thread, no GPU.

    afresh: a Python starts as users start it, and is not forked from one that has imported its libraries.
    """
    left_out = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "PYTHON"}
    clean = {name: value for name, value in os.environ.items() if name not in left_out}
    if not afresh:
        clean["PATH"] = f"{forks.folder()}{os.pathsep}{clean['PATH']}"
        if command[0] == sys.executable and command[1] != "-c":
            command = [forks.folder() / "python", *command[1:]]
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def deepspeed(ranks, *command, **kwargs):
    """Run a script under the real DeepSpeed launcher."""
    from pixelrec_train.run.resources import free_port

    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "error"]
    launcher += ["--num_gpus", ranks, "--master_port", free_port()]
    return run_command([*launcher, *command], **kwargs)


def events(run, kind):
    """The events of one kind in a run's metrics.jsonl."""
    lines = Path(run, "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def recording_python(folder):
    """(an interpreter that writes down what it is asked to run, a function that gives these command lines).

    What the scripts ask of the machine (-m pixelrec_train.run.resources, …machine.pins) the real one answers.
    """
    record, stub = folder / "record", folder / "python"
    stub.write_text(
        "#!/bin/bash\n"
        'if [ "$1" = -c ]; then exit; fi\n'
        f'case $2 in *.resources | *.machine.pins) exec {sys.executable} "$@" ;; esac\n'
        f"printf '%s\\t' \"$@\" >> {record}\nprintf '\\n' >> {record}\n"
    )
    stub.chmod(0o755)
    return str(stub), lambda: [line.split("\t")[:-1] for line in record.read_text().splitlines()]
