"""Do ranks meet? Two of them (or one per GPU) are really started by the DeepSpeed launcher."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pixelrec_train.files import PACKAGE
from pixelrec_train.machine.finding import OK, PROBLEM, Finding

RANKS_ON_CPU = 2
MOST_RANKS = 8
OF_A_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ANSWER = re.compile(r"doctor: (.*)")  # what machine/rank.py prints
NO_ANSWER = "Run it by hand to see all it says: "


def launcher(gpus, port, timeout):
    """A Finding about an all-reduce between real ranks.

    Args:
        port: a free one; None where torch could not be asked for it.
        timeout: seconds.
    """
    if port is None:
        return Finding(PROBLEM, "launcher", "not tried, as ranks need torch", "Repair the packages first")
    ranks = min(gpus, MOST_RANKS) or RANKS_ON_CPU
    command = launch(ranks, gpus, port)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        status = run_and_leave_nothing(command, output, timeout)
        output.seek(0)
        said = output.read()
    seconds = time.monotonic() - started
    if status == 0 and (answer := ANSWER.search(said)):
        return Finding(OK, "launcher", f"{answer[1]}; {seconds:.0f} s from command to end")
    failed = f"{ranks} ranks did not meet in {timeout:g} s" if status is None else f"{ranks} ranks failed"
    return Finding(PROBLEM, "launcher", f"{failed}: {last_words(said)}", NO_ANSWER + " ".join(command))


def launch(ranks, gpus, port):
    """The launcher's command line, as scripts/launcher.sh has it."""
    where, visible = ["--num_gpus", str(ranks)], os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus and visible:  # it forgets the variable when it is told a number
        where = ["--include", f"localhost:{','.join(visible.split(',')[:ranks])}"]
    rank = Path(__file__).with_name("rank.py")
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "error"]
    return [*runner, *where, "--master_port", port, str(rank)]


def run_and_leave_nothing(command, output, timeout):
    """The exit status, or None after `timeout` seconds; every process it started is gone afterwards."""
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # its ranks are in its session, and die with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment():
    """Ours without what another launcher may have left, and the package where Python finds it."""
    kept = {k: v for k, v in os.environ.items() if k not in OF_A_LAUNCHER}
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    return kept | {"PYTHONPATH": path}


def last_words(said):
    """The line that names the error, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\[rank\d+\]: )?[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["it said nothing"])[-1]
