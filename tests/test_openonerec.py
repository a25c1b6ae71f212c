"""scripts/openonerec: OpenOneRec's settings reach the ranks, under any launcher, and a signal saves."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import forks
import pytest
from conftest import ROOT, events, recording_python, run_command
from small_samples import write_small_samples

from pixelrec_train.commands.train_qwen3 import Qwen3Config, settled
from pixelrec_train.flags import parse_args
from pixelrec_train.run.launchers import NEEDED

RECIPES = ROOT / "scripts/openonerec"
STAGES = {  # recipe: warm-up and steps to the lowest rate, as OpenOneRec's scripts have them
    "pretrain_stg1": (200, 2000),
    "pretrain_stg2": (500, 5000),
    "posttrain_sft": (500, 5000),
}
INPUT = {"MODEL_DIR": "llm", "DATASET_CONFIG": "data.json", "OUTPUT_DIR": "out"}
VARIABLES = {
    "LEARNING_RATE": "3e-4", "MIN_LR": "2e-5", "LR_SCHEDULER_TYPE": "linear", "NUM_WARMUP_STEPS": "7",
    "NUM_TRAINING_STEPS": "70", "MAX_LENGTH": "512", "MINIBATCH_SIZE": "64", "SAVE_CHECKPOINT_PER_STEP": "9",
    "LOGGING_PER_STEP": "3", "WEIGHT_DECAY": "0.2", "MAX_GRAD_NORM": "0.5", "SEED": "11",
    "NUM_TRAIN_EPOCHS": "4",
    "MAX_STEPS": "40", "EVAL_STEPS": "8", "VALID_SAMPLES": "valid.json", "BF16": "True",
    "GRADIENT_ACCUMULATION_STEPS": "2", "PER_DEVICE_TRAIN_BATCH_SIZE": "5", "DATALOADER_NUM_WORKERS": "3",
}  # fmt: skip


def stub(folder, name, text):
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / "bin" / name).chmod(0o755)


def run(recipe, folder, *arguments, python=None, **environment):
    """The CompletedProcess of a recipe that stands in `folder`; executables of folder/bin come first."""
    path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
    python = {"PYTHON": python} if python else {}
    return run_command(
        ["bash", RECIPES / f"{recipe}.sh", *arguments], cwd=folder, PATH=path, PIXELREC_PYTHON="keep",
        **python | environment,
    )  # fmt: skip


def recorded(recipe, folder, *arguments, **environment):
    """(what it said, the last command line that it started) of a recipe; an interpreter only writes it down,
    and so do stubs of mpirun and srun."""
    python, commands = recording_python(folder)
    words = "${@//$'\\n'/ }"  # a line each
    for name in ("mpirun", "srun"):
        stub(folder, name, f"{{ printf '%s\\t' {name} \"{words}\"; echo; }} >> {folder}/record")
    result = run(recipe, folder, *arguments, python=python, **environment)
    assert result.returncode == 0, result.stderr
    return result, commands()[-1]


def config_of(command):
    """What train_qwen3 makes of the flags behind its name."""
    place = next(n for n, word in enumerate(command) if word.endswith("train_qwen3.py"))
    return settled(parse_args(Qwen3Config, command[place + 1 :]))


def value_behind(command, flag):
    return command[command.index(flag) + 1]


@pytest.mark.parametrize("recipe", STAGES)
def test_a_recipe_passes_openonerecs_published_settings(tmp_path, recipe):
    _, command = recorded(recipe, tmp_path, **INPUT)
    config = config_of(command)
    warmup, steps = STAGES[recipe]
    expected = {
        "model_dir": "llm", "dataset_config": "data.json", "output_dir": "out", "learning_rate": 2e-4,
        "min_lr": 1e-4, "lr_scheduler_type": "cosine", "warmup_steps": warmup, "decay_steps": steps,
        "max_length": 32768, "loss_chunk": 16384, "save_steps": 50, "logging_steps": 5, "weight_decay": 0.1,
        "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "seed": 19260817,
        "loss_by_source": True, "counts_by_source": True, "gradient_checkpointing": True,
        "new_rows_only": recipe == "pretrain_stg1", "gradient_accumulation_steps": 1,
        "per_device_train_batch_size": 1, "checkpoint_layout": "global_step",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("recipe", STAGES)
def test_every_variable_reaches_its_flag(tmp_path, recipe):
    more = {"DEEPSPEED_CONFIG": "zero3.json"}
    if recipe == "pretrain_stg1":
        more["START_OPTIMIZE_EMBEDDING_INDEX"] = "123"
    _, command = recorded(recipe, tmp_path, "--pack", "greedy", **INPUT, **VARIABLES, **more)
    for name, value in VARIABLES.items():
        assert value_behind(command, f"--{name.lower()}") == value
    config = config_of(command)
    assert (config.deepspeed, config.pack) == ("zero3.json", "greedy")
    assert config.first_new_row == (123 if recipe == "pretrain_stg1" else None)
    on_top = re.findall(r"^([A-Z_]+)=\$\{", (RECIPES / f"{recipe}.sh").read_text(), re.M)
    passed = re.search(r'of_a_stage="([^"]*)"', (RECIPES / "recipe.sh").read_text())[1].split()
    assert set(on_top) <= {*VARIABLES, *INPUT} and set(passed) == set(VARIABLES)


def test_model_data_and_place_may_be_flags_as_well(tmp_path):
    flags = ("--model_dir", "a", "--dataset_config=b", "--output_dir", "c")
    result, command = recorded("posttrain_sft", tmp_path, *flags)
    config = config_of(command)
    assert (config.model_dir, config.dataset_config, config.output_dir) == ("a", "b", "c")
    assert "tail -f c/stdout.log" in result.stdout and (tmp_path / "c/stdout.log").is_file()


TWO = "# machines\n first slots=4\nsecond   slots=2  # older\n"


def test_deepspeed_starts_ranks_of_one_machine_or_of_a_hostfile(tmp_path):
    _, command = recorded("pretrain_stg1", tmp_path, NUM_GPUS="3", **INPUT)
    assert command[1] == "deepspeed.launcher.runner" and value_behind(command, "--num_gpus") == "3"
    (tmp_path / "hosts").write_text(TWO)
    where = {"HOSTFILE": "hosts", "MASTER_ADDR": "first.lan", "MASTER_PORT": "7000"}
    _, command = recorded("pretrain_stg1", tmp_path, **where, **INPUT)
    named = [value_behind(command, flag) for flag in ("--hostfile", "--master_addr", "--master_port")]
    assert named == list(where.values()) and command[1] == "pixelrec_train.machine.hosts"


def test_torchrun_starts_ranks_of_one_machine(tmp_path):
    _, command = recorded("pretrain_stg1", tmp_path, LAUNCHER="torchrun", NUM_GPUS="3", **INPUT)
    assert command[:10] == [
        "-m", "torch.distributed.run", "--nnodes", "1", "--node_rank", "0", "--nproc_per_node", "3",
        "--master_addr", "127.0.0.1",
    ]  # fmt: skip
    with socket.socket() as s:
        s.bind(("127.0.0.1", int(value_behind(command, "--master_port"))))  # it is free


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"NODE_RANK": "0"}, ["2", "0", "4", "first", "8499"]),
        ({"NODE_RANK": "1"}, ["2", "1", "2", "first", "8499"]),
        ({"NODE_RANK": "1", "NPROC_PER_NODE": "7", "MASTER_PORT": "7000", "MASTER_ADDR": "head"},
         ["2", "1", "7", "head", "7000"]),
        ({"HOSTFILE": "", "NNODES": "3", "NODE_RANK": "2", "NUM_GPUS": "5", "MASTER_ADDR": "head"},
         ["3", "2", "5", "head", "8499"]),
        ({"SECOND": "here"}, ["2", "1", "2", "first", "8499"]),
    ],
    ids=["first", "second", "told", "without a hostfile", "found by name"],
)  # fmt: skip
def test_torchrun_on_several_machines(tmp_path, environment, expected):
    hosts = TWO.replace("second", socket.gethostname()) if environment.pop("SECOND", None) else TWO
    (tmp_path / "hosts").write_text(hosts)
    _, command = recorded(
        "pretrain_stg1", tmp_path, **INPUT, **{"LAUNCHER": "torchrun", "HOSTFILE": "hosts"} | environment
    )
    names = ("--nnodes", "--node_rank", "--nproc_per_node", "--master_addr", "--master_port")
    assert [value_behind(command, name) for name in names] == expected


def test_mpirun_starts_them_all_and_passes_on_what_they_need(tmp_path):
    _, command = recorded(
        "pretrain_stg1", tmp_path, LAUNCHER="mpirun", NUM_GPUS="3", NCCL_DEBUG="WARN", **INPUT
    )
    launcher = command[: command.index("--model_dir")]
    assert launcher[:3] == ["mpirun", "-np", "3"] and value_behind(launcher, "--host") == "localhost:3"
    passed_on = {word for flag, word in zip(launcher, launcher[1:], strict=False) if flag == "-x"}
    assert {"PATH", "OMP_NUM_THREADS", "DS_ACCELERATOR", "NCCL_DEBUG", "MASTER_ADDR=127.0.0.1"} <= passed_on
    (tmp_path / "hosts").write_text(TWO)
    _, command = recorded("pretrain_stg1", tmp_path, LAUNCHER="mpirun", HOSTFILE="hosts", **INPUT)
    launcher = command[: command.index("--model_dir")]
    assert value_behind(launcher, "-np") == "6" and value_behind(launcher, "--hostfile") == "hosts"
    assert {"MASTER_ADDR=first", "MASTER_PORT=8499"} <= set(launcher) and "--host" not in launcher


@pytest.mark.parametrize(
    "environment, ranks, port",
    [
        ({"NUM_GPUS": "3"}, "3", None),
        ({"SLURM_NTASKS": "16", "SLURM_JOB_ID": "123"}, "16", "20123"),
        ({"SLURM_JOB_NUM_NODES": "2", "MASTER_PORT": "7000"}, "4", "7000"),
    ],
    ids=["asked", "allocation", "machines"],
)
def test_srun_starts_as_many_tasks_as_there_are(tmp_path, environment, ranks, port):
    _, command = recorded("pretrain_stg1", tmp_path, LAUNCHER="srun", **INPUT, **environment)
    assert command[0] == "srun" and value_behind(command, "--ntasks") == ranks
    (found,) = [word.removeprefix("MASTER_PORT=") for word in command if word.startswith("MASTER_PORT=")]
    assert port in (None, found)
    config_of(command)


@pytest.mark.parametrize(
    "environment, says",
    [
        ({"LAUNCHER": "slurm"}, "LAUNCHER must be deepspeed, torchrun, mpirun or srun, got 'slurm'."),
        ({"LAUNCHER": "mpirun"}, "LAUNCHER=mpirun, but there is no mpirun on this machine."),
        ({"LAUNCHER": "srun"}, "LAUNCHER=srun, but there is no srun on this machine."),
        ({"LAUNCHER": "torchrun", "HOSTFILE": "hosts"}, "is no line of HOSTFILE hosts. Set NODE_RANK"),
        ({"LAUNCHER": "torchrun", "HOSTFILE": "hosts", "NODE_RANK": "2"}, "has 2 machines; the first is 0."),
        ({"LAUNCHER": "torchrun", "NNODES": "2"}, "NNODES=2 machines need MASTER_ADDR"),
        ({"HOSTFILE": "nowhere"}, "HOSTFILE nowhere does not exist"),
        ({"HOSTFILE": "odd"}, "HOSTFILE odd has a line 'second:2'; each must be 'name slots=8'"),
        ({"HOSTFILE": "empty"}, "HOSTFILE empty names no machine"),
        ({"DATASET_CONFIG": ""}, "MODEL_DIR and DATASET_CONFIG belong together"),
        ({"NUM_GPUS": "two"}, "NUM_GPUS must be a number of ranks"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_what_cannot_start_is_one_sentence_before_anything_runs(tmp_path, environment, says):
    (tmp_path / "hosts").write_text(TWO)
    (tmp_path / "odd").write_text("first slots=4\nsecond:2\n")
    (tmp_path / "empty").write_text("# none\n")
    if shutil.which(environment.get("LAUNCHER", "")) and "there is no" in says:
        pytest.skip(f"{environment['LAUNCHER']} is here")
    python, _ = recording_python(tmp_path)
    result = run("pretrain_stg1", tmp_path, python=python, **INPUT | environment)
    assert result.returncode == 2 and says in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not (tmp_path / "record").exists()


def test_srun_and_a_hostfile_are_two_lists_of_machines(tmp_path):
    (tmp_path / "hosts").write_text(TWO)
    stub(tmp_path, "srun", "")
    result = run("pretrain_stg1", tmp_path, LAUNCHER="srun", HOSTFILE="hosts", **INPUT)
    assert result.returncode == 2 and "srun takes its machines from the allocation" in result.stderr


def test_the_demo_is_not_changed_by_what_is_set_for_a_stage(tmp_path):
    """Its two-tower model has settings and a place of its own."""
    stub(
        tmp_path,
        "bash",
        'case $1 in *run_train_pixelrec.sh) env > asked; exit 3 ;; esac; exec /bin/bash "$@"',
    )
    python, _ = recording_python(tmp_path)
    result = run("pretrain_stg1", tmp_path, python=python, OUTPUT_DIR="mine", **VARIABLES)
    assert result.returncode == 3
    asked = dict(line.partition("=")[::2] for line in (tmp_path / "asked").read_text().splitlines())
    assert asked["OUTPUT_DIR"] == "results/demo" and not VARIABLES.keys() & asked.keys()


def test_a_recipe_detaches_and_says_where_to_look(tmp_path):
    python, commands = recording_python(tmp_path)
    result = run("pretrain_stg2", tmp_path, python=python, BACKGROUND="1", **INPUT)
    assert result.returncode == 0 and "tail -f logs/openonerec_pretrain_stg2_launch.log" in result.stdout
    until = time.monotonic() + 20
    while not ((tmp_path / "record").exists() and "train_qwen3" in (tmp_path / "record").read_text()):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert config_of(commands()[-1]).output_dir == "out"


@pytest.mark.parametrize("recipe", [*STAGES, "run_all"])
def test_help_starts_nothing(tmp_path, recipe):
    python, commands = recording_python(tmp_path)
    result = run(recipe, tmp_path, "--help", python=python)
    assert result.returncode == 0
    if recipe == "run_all":
        assert "OpenOneRec's whole pipeline" in result.stdout and not (tmp_path / "record").exists()
    else:
        assert [command[1:] for command in commands()] == [["--help"]]


@pytest.mark.parametrize("shell", ["bash -euo pipefail", "bash", "sh -eu"], ids=["strict", "bash", "sh"])
def test_set_env_is_sourced_in_any_state_and_sets_nothing(shell):
    command = f'a=$(env | sort); . {RECIPES}/set_env.sh; [ "$a" = "$(env | sort)" ] && echo same'
    result = subprocess.run([*shell.split(), "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and result.stdout.endswith("same\n") and not result.stderr


def test_a_model_is_tested_by_its_place_or_by_a_variable(tmp_path):
    python, commands = recording_python(tmp_path)
    script = ["bash", ROOT / "scripts/test_hf_model.sh"]
    more = {"PYTHON": python, "PIXELREC_PYTHON": "keep", "cwd": tmp_path}
    for arguments, environment in (
        (["m", "--before", "b"], {}),
        (["m"], {"BEFORE": "b", "HF_MODEL_DIR": "n"}),
        ([], {"BEFORE": "b", "HF_MODEL_DIR": "m"}),
        (["--trust_remote_code"], {"BEFORE": "b", "HF_MODEL_DIR": "m"}),
    ):
        assert run_command([*script, *arguments], **environment, **more).returncode == 0
        command = commands()[-1]
        assert command[0].endswith("scripts/verify_model.py") and command[1:5] == [
            "--hf_model_dir",
            "m",
            "--before",
            "b",
        ]
    for arguments in (["--help"], ["m", "--help"], ["-h"]):
        assert run_command([*script, *arguments], **more).returncode == 0
        assert commands()[-1][1:] == ["--help"]
    result = run_command(script, **more)
    assert result.returncode == 2 and "set HF_MODEL_DIR" in result.stderr
    convert = ["bash", ROOT / "scripts/convert_checkpoint_to_hf.sh"]
    for arguments in (["--help"], ["b", "h", "1", "--help"]):
        assert run_command([*convert, *arguments], **more).returncode == 0
        assert commands()[-1][1:] == ["--help"]


# Open MPI's mpirun and Slurm's srun are not here: bash stands for them, and sets what they set.
MPIRUN = """
kept=("HOME=$HOME")
while :; do
    case $1 in
    -np) n=$2; shift 2 ;;
    -x) case $2 in *=*) kept+=("$2") ;; *) kept+=("$2=${!2}") ;; esac; shift 2 ;;
    --allow-run-as-root) shift ;;
    --*) shift 2 ;;
    *) break ;;
    esac
done
for ((i = 0; i < n; i++)); do  # as on another machine: nothing but what -x names, and its own
    env -i "${kept[@]}" OMPI_COMM_WORLD_RANK=$i OMPI_COMM_WORLD_SIZE=$n OMPI_COMM_WORLD_LOCAL_RANK=$i \\
        OMPI_COMM_WORLD_LOCAL_SIZE=$n "$@" &
    ranks+=($!)
done
for rank in "${ranks[@]}"; do wait "$rank" || status=$?; done
exit "${status:-0}"
"""
SRUN = """
[ "$1" = --ntasks ] || exit 9
n=$2; shift 2
export SLURM_NTASKS=$n SLURM_STEP_TASKS_PER_NODE="$((n / 2))(x2)" SLURM_STEP_NODELIST="node[1-2]"
for ((i = 0; i < n; i++)); do SLURM_PROCID=$i SLURM_LOCALID=$((i % (n / 2))) "$@" || exit; done
"""
SCONTROL = '[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"'


# of a stub python: what the scripts ask of the machine, the real one answers
ANSWERS = f'[ "$1" = -c ] && exit; case $2 in *.resources) exec {sys.executable} "$@" ;; esac'


def test_ranks_of_srun_know_their_places(tmp_path):
    stub(tmp_path, "srun", SRUN)
    stub(tmp_path, "scontrol", SCONTROL)
    told = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert {"RANK", *NEEDED} <= set(told)
    stub(tmp_path, "python", f"{ANSWERS}; printenv {' '.join(told)}")
    settings = {"LAUNCHER": "srun", "NUM_GPUS": "4", "SLURM_JOB_ID": "7", "RANK": "9", "LOCAL_RANK": "9"}
    result = run("posttrain_sft", tmp_path, python=str(tmp_path / "bin/python"), **settings, **INPUT)
    said = (tmp_path / "out/stdout.log").read_text().split()
    ranks = [["0", "0"], ["1", "1"], ["2", "0"], ["3", "1"]]
    assert said == [word for rank in ranks for word in (*rank, "4", "2", "node1", "20007")], result.stderr


def test_what_a_run_says_is_kept_and_its_status_is_the_recipes(tmp_path):
    stub(tmp_path, "python", f"{ANSWERS}; echo figures; echo trouble >&2; exit 7")
    for times in (1, 2):
        result = run(
            "posttrain_sft", tmp_path, python=str(tmp_path / "bin/python"), LAUNCHER="torchrun", **INPUT
        )
        assert (
            result.returncode == 7 and result.stdout.endswith("\nfigures\n") and result.stderr == "trouble\n"
        )
        assert (tmp_path / "out/stdout.log").read_text() == times * "figures\n"
        assert (tmp_path / "out/stderr.log").read_text() == times * "trouble\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """llm/ and samples/ of a tiny model, and bin/ with what starts ranks."""
    folder = tmp_path_factory.mktemp("recipes")
    write_small_samples(folder)
    stub(folder, "mpirun", MPIRUN)
    return folder


@pytest.fixture(scope="module", params=["mpirun", "torchrun"])
def stopped(request, folder):
    """(status, what it said, run directory) of two ranks under a recipe that gets SIGTERM at step 3."""
    launcher, python = request.param, str(forks.folder() / "python")
    settings = {
        "LAUNCHER": launcher, "NUM_GPUS": "2", "MODEL_DIR": str(folder / "llm"), "OUTPUT_DIR": launcher,
        "DATASET_CONFIG": str(folder / "samples/dataset.json"), "MAX_LENGTH": "128", "MAX_STEPS": "900",
        "NUM_TRAIN_EPOCHS": "99", "LOGGING_PER_STEP": "1", "DATALOADER_NUM_WORKERS": "0",
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PIXELREC_PYTHON": "keep",
        "PATH": f"{folder}/bin{os.pathsep}{forks.folder()}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable if launcher == "torchrun" else python,  # its children are to be its own
        "PYTHON_EXEC": python,  # by which torchrun starts its ranks
    }  # fmt: skip
    kept = {
        k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    }
    process = subprocess.Popen(
        ["bash", RECIPES / "posttrain_sft.sh"], cwd=folder, env=kept | settings, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if re.search(" step 0*3/", line):
            os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: to all processes of the script
    return process.wait(), "".join(said), folder / launcher


@pytest.mark.launch
def test_a_signal_to_a_recipe_saves_and_ends(stopped):
    status, said, run = stopped
    assert status == 0 and "batch: 2 packs x 1 per step over 2 ranks" in said, said
    kept = (run / "stdout.log").read_text()
    assert set(kept.splitlines()) <= set(said.splitlines()) and re.search(" step 0*3/.* save 0", kept, re.S)
    assert "SIGTERM: saving after this step, then ending" in (run / "stderr.log").read_text()
    (checkpoint,) = run.glob("step*/global_step*/manifest.json")
    assert not (run / "table.json").exists()


@pytest.mark.launch
def test_ranks_train_the_same_under_any_launcher(stopped, folder):
    losses = {run: [event["loss"] for event in events(folder / run, "step")[:3]] for run in begun(folder)}
    assert len(losses[stopped[2].name]) == 3 and len(set(map(tuple, losses.values()))) == 1


def begun(folder):
    return [path.parent.name for path in folder.glob("*/metrics.jsonl")]
