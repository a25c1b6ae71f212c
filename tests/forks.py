"""Where a test finds the Python that is forked from one with all libraries imported: see fork_server.py."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HERE, VARIABLE = Path(__file__).resolve().parent, "PIXELREC_TESTS_FORKS"
NAMES = ("python", "python3", "deepspeed", "torchrun", "tensorboard")


def folder():
    """A folder to stand first on PATH: what it holds under these names starts as a fork."""
    return Path(os.environ[VARIABLE])


def start():
    """Once for all workers, which inherit the environment. It imports nothing until it is needed."""
    made = os.environ[VARIABLE] = tempfile.mkdtemp(prefix="forks-")  # short: the path of a socket is
    client = [sys.executable, "-IS", HERE / "fork_client.py", f"{made}/socket", sys.executable]
    for name in NAMES:
        command = shlex.join(map(str, [*client, name]))
        (folder() / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder() / name).chmod(0o755)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{made}/socket")
    listener.listen(64)
    return subprocess.Popen(
        [sys.executable, HERE / "fork_server.py", str(listener.fileno())], pass_fds=[listener.fileno()],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def end(server):
    server.stdin.close()  # as the end of this process would; and so its forks end, too
    server.wait()
    shutil.rmtree(folder())
