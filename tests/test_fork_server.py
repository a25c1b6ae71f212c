"""A forked Python is like one that was started: what it is given, what it says, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time

import forks
import pytest
from conftest import run_command

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SAYS = """
import json, os, sys, __main__
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "name": __name__, "file": __main__.__file__,
    "X": os.environ["X"], "names": sorted(os.environ), "in": sys.stdin.read(),
    "torch": "torch" in sys.modules,
    "ours": [name for name in sys.modules if name.startswith("pixelrec_train")],
}))
"""


def both(command, **more):
    """What a process says that was started, and what one says that was forked."""
    return [
        subprocess.run([python, *command], capture_output=True, text=True, timeout=60, **more)
        for python in (sys.executable, forks.folder() / "python")
    ]


@pytest.mark.parametrize("as_module", [False, True])
def test_a_fork_sees_what_a_process_would(tmp_path, as_module):
    (tmp_path / "some folder").mkdir()
    (tmp_path / "some folder/says.py").write_text(SAYS)
    here, command = (
        (tmp_path / "some folder", ["-m", "says"]) if as_module else (tmp_path, ["some folder/says.py"])
    )
    started, forked = both(
        [*command, "a b", "--c"], cwd=here, input="typed", env=os.environ | {"X": "ä", "OMP_NUM_THREADS": "1"}
    )
    assert started.stderr == forked.stderr == ""
    one, other = json.loads(started.stdout), json.loads(forked.stdout)
    assert (one.pop("torch"), other.pop("torch")) == (False, True)
    set_by_libraries = set(other.pop("names")) - set(one.pop("names"))
    assert all(name.startswith(("KMP_", "TORCH", "PYTORCH_")) for name in set_by_libraries)
    assert one == other and not one["ours"]


@pytest.mark.parametrize(
    "code, status",
    [
        ("raise SystemExit(3)", 3), ("import sys; sys.exit('words')", 1), ("1 / 0", 1),
        ("import os; os._exit(7)", 7), ("raise KeyboardInterrupt", -2),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.abort()", -6), ("import atexit; atexit.register(print, 'left')", 0),
    ],
)  # fmt: skip
def test_a_fork_ends_as_a_process_would(code, status):
    started, forked = both(["-c", code], env=ENVIRONMENT)
    assert started.returncode == forked.returncode == status
    assert started.stdout == forked.stdout
    assert started.stderr.splitlines()[-1:] == forked.stderr.splitlines()[-1:]


def test_signals_reach_a_fork_and_it_does_not_outlive_who_waits_for_it(tmp_path):
    code = """if True:
        import os, signal, sys, time
        signal.signal(signal.SIGUSR1, lambda *_: print("got it", flush=True))
        print(os.getpid(), flush=True)
        while True: time.sleep(0.1)
    """
    process = subprocess.Popen(
        [forks.folder() / "python", "-c", code], stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    fork = int(process.stdout.readline())
    assert fork != process.pid
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "got it\n"
    process.kill()
    for _ in range(100):
        try:
            os.kill(fork, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"process {fork} is left over")


def test_what_imports_would_have_seen_is_started_afresh(tmp_path):
    (tmp_path / "sees.py").write_text("import sys; print('torch' in sys.modules)")
    for environment, forked in (
        ({}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"OMP_NUM_THREADS": "2"}, False),
    ):
        assert run_command([sys.executable, tmp_path / "sees.py"], **environment).stdout == f"{forked}\n"
    assert run_command([sys.executable, tmp_path / "sees.py"], afresh=True).stdout == "False\n"
