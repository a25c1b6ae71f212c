"""From the launcher's command line to the first step, as a user waits for it."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import ROOT
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.__main__ import COMMANDS
from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.data.synthetic import write_demo
from pixelrec_train.model.tiny import write_towers
from pixelrec_train.run import resources

FIRST_STEP = " step 00001/"
PATIENCE = 300  # seconds
QUIET = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


@benchmark(unit="CPU s", goal=Goal("value", at_most=0.5), tiny={"commands": ["prep", "train_pixelrec"]})
def help_and_mistakes(inputs, commands=tuple(COMMANDS)):
    """The dearest of --help, a mistyped flag and a missing file, over all commands."""
    wrong = ([], ["--help"], ["--zzz", "1"], ["--interaction_data", "nowhere.csv"])
    times = {f"{c} {' '.join(f)}": cpu_seconds([c, *f]) for c in commands if c != "doctor" for f in wrong}
    dearest = max(times, key=times.get)
    return Result(times[dearest], note=dearest)


@benchmark(unit="CPU s", goal=Goal("value", at_most=4), tiny=None)
def dry_run(inputs):
    """The plan of the demo, data and tokens cached."""
    with tempfile.TemporaryDirectory(prefix="pixelrec-benchmark-") as folder:
        write_demo(f"{folder}/demo.csv", f"{folder}/texts.csv")
        write_towers(all_text(f"{folder}/texts.csv"), f"{folder}/towers")
        plan = ["train_pixelrec", *flags_of(folder), "--dry_run", 2]
        cpu_seconds(plan)
        return Result(cpu_seconds(plan), note="--dry_run 2")


def cpu_seconds(arguments):
    """User and system time of python -m pixelrec_train with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pixelrec_train", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, env=os.environ | QUIET, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@benchmark(unit="wall s", goal=Goal("value", at_most=6), tiny=None)
def first_step(inputs, ranks=2):
    """The demo under the real DeepSpeed launcher; the second start, so that data and tokens are cached."""
    with tempfile.TemporaryDirectory(prefix="pixelrec-benchmark-") as folder:
        write_demo(f"{folder}/demo.csv", f"{folder}/texts.csv")
        write_towers(all_text(f"{folder}/texts.csv"), f"{folder}/towers")
        seconds_to_first_step(folder, ranks)
        return Result(seconds_to_first_step(folder, ranks), note=f"{ranks} ranks, ZeRO-2, no compiler")


def seconds_to_first_step(folder, ranks):
    """Start the run, wait for its first step line, and stop it.

    Raises:
        RuntimeError: it ended, or PATIENCE did, before the first step.
    """
    command = [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        "--log_level",
        "error",
        "--num_gpus",
        ranks,
        "--master_port",
        resources.free_port(),
        "scripts/train_pixelrec.py",
        *flags_of(folder),
    ]
    screen = Path(folder, "screen.log")
    nothing = {"CXX": "/nonexistent", "CC": "/nonexistent", "TORCH_EXTENSIONS_DIR": f"{folder}/extensions"}
    environment = os.environ | nothing | QUIET
    with open(screen, "w") as file:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            while FIRST_STEP not in screen.read_text():
                if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                    raise RuntimeError(f"no first step:\n{screen.read_text()[-2000:]}")
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            stop(process)


def flags_of(folder):
    """Of a run of the demo in this folder."""
    return [
        "--interaction_data", f"{folder}/demo.csv", "--text_data", f"{folder}/texts.csv",
        "--text_keys", "title,tag,description", "--item_prompt", "", "--max_text_length", 64,
        "--item_model_dir", f"{folder}/towers/item_llm", "--user_model_dir", f"{folder}/towers/user_llm",
        "--per_device_train_batch_size", 16, "--learning_rate", 2e-3, "--gradient_checkpointing", False,
        "--bf16", False, "--dataloader_num_workers", 1, "--logging_steps", 1, "--overwrite",
        "--output_dir", f"{folder}/run", "--logging_dir", f"{folder}/logs/run",
        "--cache_dir", f"{folder}/cache",
    ]  # fmt: skip


def stop(process):
    """The launcher passes the signal on to its ranks; what is left after some seconds is killed."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)  # the session that was started for it, and no other
    except ProcessLookupError:
        process.wait()  # nothing was left
