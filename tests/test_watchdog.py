"""A run that stands still says which rank it waits for, and the first rank to fail is the one that speaks."""

import json
import subprocess
import time

import forks
import pytest
from conftest import ROOT

from pixelrec_train.resources import free_port
from pixelrec_train.run import watchdog

RANK = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
from pixelrec_train.run import watchdog
from pixelrec_train.run.exit_status import speak_plainly
watchdog.BEAT, watchdog.SILENT, watchdog.GRACE = 0.2, 1.0, 1.0
rank, port, case = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = dist.TCPStore("127.0.0.1", port, None, rank == 0, timedelta(seconds=20), wait_for_workers=False)
watchdog.start(store, rank, 3, limit_s=2.0 if case == "hang" else 60.0)
store = None

def stand_still():
    time.sleep(60)

@speak_plainly
def main():
    watchdog.at("step 7: forward and backward")
    if rank != 1:
        watchdog.at("step 8: waiting for a batch")
    if case == "hang":
        stand_still()
    while len(watchdog.watchdog.read()) < 3:
        time.sleep(0.05)  # some start later than others
    time.sleep(0.5)
    if case == "killed" and rank == 1:
        import os
        os._exit(9)
    elif case in ("killed", "error") and rank != 1:
        time.sleep(0.4)
        raise RuntimeError("gloo: Connection closed by peer")
    elif case == "error":
        raise ZeroDivisionError("the first error")

main()
"""


def ranks(case):
    """(exit statuses, stderr) of three ranks that behave as RANK says."""
    port = free_port()
    started = [
        subprocess.Popen(
            [forks.folder() / "python", "-c", RANK, str(r), port, case],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for r in range(3)
    ]  # fmt: skip
    said = [process.communicate(timeout=60)[1] for process in started]
    return [process.returncode for process in started], said


@pytest.mark.launch
def test_a_rank_that_stands_still_is_named_with_its_phase_and_its_stack():
    statuses, said = ranks("hang")
    assert statuses == [1, 1, 1]
    sentences = [line for text in said for line in text.splitlines() if line.startswith("error:")]
    assert len(sentences) == 1
    assert "rank 1 (process" in sentences[0] and "in 'step 7: forward and backward' keeps" in sentences[0]
    assert "rank 0 in 'step 8: waiting for a batch'" in sentences[0]
    assert "in stand_still" in said[1] and "stand_still" not in said[0] + said[2]


@pytest.mark.launch
def test_only_the_first_error_is_told_and_not_what_follows_from_it():
    statuses, said = ranks("error")
    assert statuses == [1, 1, 1]
    assert "ZeroDivisionError: the first error" in said[1] and said[0] + said[2] == ""


@pytest.mark.launch
def test_a_rank_that_vanishes_without_a_word_is_named():
    statuses, said = ranks("killed")
    assert statuses == [1, 9, 1]
    assert "rank 1 (process" in "".join(said) and "is gone without a word" in "".join(said)
    assert "".join(said).count("error:") == 1 and "Traceback" not in "".join(said)


class Store(dict):
    """Stands where a TCPStore stands."""

    set = dict.__setitem__

    def check(self, keys):
        return all(key in self for key in keys)


def test_a_slow_run_that_moves_is_left_alone(monkeypatch):
    monkeypatch.setattr(watchdog, "BEAT", 0.01)
    store = Store()
    watchdog.start(store, 0, 1, limit_s=0.3)
    for part in range(10):
        time.sleep(0.1)
        watchdog.at(f"part {part}")
    watchdog.stop()
    assert json.loads(store["0"])["phase"] in ("part 8", "part 9")
    assert not store.check([watchdog.FAILED])
