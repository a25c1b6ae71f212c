"""A run that stands still says which rank it waits for, and the first rank to fail is the one that speaks."""

import importlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import forks
import numpy as np
import pytest
import torch.distributed as dist
from conftest import ROOT

from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.vectors import Vectors
from pixelrec_train.run import exit_status, log, watchdog, watcher
from pixelrec_train.run.progress import progress
from pixelrec_train.run.resources import free_port

RANK = """
import os, sys, time
from datetime import timedelta
import torch.distributed as dist
from pixelrec_train.run import watchdog, watcher
from pixelrec_train.run.exit_status import speak_plainly
watcher.BEAT, watcher.SILENT, watcher.GRACE = 0.2, 1.0, 1.0
rank, port, case = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.environ["LOCAL_RANK"] = str(rank)
store = dist.TCPStore("127.0.0.1", port, None, rank == 0, timedelta(seconds=20), wait_for_workers=False)
names = [f"process {n} on h" for n in range(3)]

def wait_for_all(place):  # store.wait would keep the watchdog's threads from the store
    store.set(f"{place} {rank}", "")
    while not store.check([f"{place} {r}" for r in range(3)]):
        time.sleep(0.05)

wait_for_all("came")  # as ranks meet before they are watched, however late a busy machine has started one
watchdog.start(store, rank, names, limit_s={"hang": 2.0, "reads": 0.8}.get(case, 60.0))
if case != "reads":
    store = None

def stand_still():
    time.sleep(60)

def read(seconds):  # rank 1 prepares a cache, the others wait for it
    from pixelrec_train.data.cache import cached

    def build():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(1000))
        return {}, {}

    if rank == 1:
        cached(sys.argv[4], "texts", "ab", build)
    wait_for_all("read")
    watchdog.stop()
    wait_for_all("left")
    time.sleep(0.5 if rank == 0 else 0)

@speak_plainly
def main():
    watchdog.at("step 7: forward and backward")
    if rank != 1:
        watchdog.at("step 8: waiting for a batch")
    if case == "hang":
        stand_still()
    if case == "reads":
        return read(1.6)
    time.sleep(0.5)
    if (case, rank) in (("killed", 1), ("first", 0)):
        os._exit(9)
    if case == "first":
        stand_still()
    elif case in ("killed", "error") and rank != 1:
        time.sleep(0.4)
        raise RuntimeError("gloo: Connection closed by peer")
    elif case == "error":
        raise ZeroDivisionError("the first error")

main()
"""


def ranks(case, *more):
    """(exit statuses, stderr) of three ranks that behave as RANK says."""
    port = free_port()
    started = [
        subprocess.Popen(
            [forks.folder() / "python", "-c", RANK, str(r), port, case, *map(str, more)],
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


@pytest.mark.launch
def test_when_rank_0_vanishes_with_the_store_the_others_say_so_where_they_stand():
    statuses, said = ranks("first")
    assert statuses == [9, 1, 1]
    assert "rank 0 (process 0 on h) is gone without a word, last in 'step 8" in said[1] and said[2] == ""


@pytest.mark.launch
def test_ranks_that_wait_for_one_that_reads_are_not_ended(tmp_path):
    statuses, said = ranks("reads", tmp_path)
    assert statuses == [0, 0, 0], said
    assert (tmp_path / "texts-ab/facts.json").is_file()


@pytest.fixture
def dog(monkeypatch):
    """dog(rank) -> the Watcher of one of three ranks, without its threads; its end is a SystemExit."""
    monkeypatch.setattr(watcher, "BEAT", 0.01)
    monkeypatch.setattr(watcher, "GRACE", 0.05)
    monkeypatch.setattr(watcher.os, "_exit", lambda status: sys.exit(status))
    monkeypatch.setattr(watcher.faulthandler, "dump_traceback", lambda: None)
    for name, value in dict(LOCAL_RANK="0", MASTER_ADDR="host-a", MASTER_PORT="29500").items():
        monkeypatch.setenv(name, value)

    def watching(rank=0, store=None, limit_s=1800.0):
        made = watcher.Watcher(
            store or dist.HashStore(), rank, [f"process {n} on h{n}" for n in range(3)], limit_s
        )
        monkeypatch.setattr(watchdog, "watcher", made)
        for other in range(3):
            say(made, other)
        made.look_after_others()
        return made

    return watching


def say(dog, rank, **word):
    dog.store.set(str(rank), json.dumps(dict(beats=0, moves=0, phase="step 3") | word))


def pass_seconds(dog, seconds, **words):
    """Each second the ranks r1= and r2= say a word made of that second; the others say nothing new."""
    for second in range(1, seconds + 1):
        dog.clock += 1
        for rank, word in words.items():
            say(dog, int(rank[1:]), **word(second))
        dog.look_after_others()


def beats(second):
    return {"beats": second, "at": -1e9}


def moves(second):
    return {"beats": second, "moves": second}


def test_a_word_that_no_longer_changes_is_a_rank_that_is_gone_whatever_its_clock(dog, capsys):
    """Under NCCL nobody else says so."""
    first = dog()
    pass_seconds(first, 60, r1=beats)
    with pytest.raises(SystemExit):
        pass_seconds(first, 1, r1=beats)
    said = capsys.readouterr().err
    assert said.count("error:") == 1 and "rank 2 (process 2 on h2) is gone without a word" in said
    assert "last in 'step 3': no sign of life for 60 s" in said and "rank 1" not in said
    other = watcher.Watcher(first.store, 1, first.names, 60)
    with pytest.raises(SystemExit):
        other.end_with_the_run()
    assert capsys.readouterr().err == ""


def test_rank_0_is_missed_too_and_by_who_never_heard_of_the_others(dog, capsys):
    last = dog(rank=2)
    with pytest.raises(SystemExit):
        pass_seconds(last, 61, r1=beats)
    assert "rank 0 (process 0 on h0) is gone without a word" in capsys.readouterr().err


def test_whoever_has_said_that_it_leaves_is_not_missed(dog):
    first = dog()
    for rank in (1, 2):
        first.store.set(str(rank), json.dumps({"left": True}))
    pass_seconds(first, 200)


def test_ranks_that_wait_for_a_busy_one_are_left_alone_for_hours(dog, capsys):
    """Rank 2 tokenises; the others wait in a barrier. Then it does nothing more."""
    first = dog()
    pass_seconds(first, 4000, r1=beats, r2=moves)
    pass_seconds(first, 1800, r1=beats, r2=lambda second: {"beats": -second, "moves": 4000})
    with pytest.raises(SystemExit):
        pass_seconds(first, 1, r1=beats, r2=lambda second: {"beats": -1801, "moves": 4000})
    assert "nothing has moved for 30 minutes: rank 0 (process 0 on h0) in 'step 3'; rank 1" in (
        capsys.readouterr().err
    )


class Cut:
    """A store that was cut off: it never answers, until it is gone."""

    def __init__(self):
        self.store, self.cut, self.gone = dist.HashStore(), threading.Event(), threading.Event()

    def __getattr__(self, name):
        if self.cut.is_set():
            self.gone.wait()
            raise RuntimeError("Connection reset by peer")
        return getattr(self.store, name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_store_that_never_answers_ends_the_rank_and_so_does_one_that_is_gone(dog, capsys, monkeypatch):
    monkeypatch.setattr(watcher, "LOST", 0.1)
    far = dog(rank=2, store=Cut())
    far.store.cut.set()
    talk, guard = far.threads
    talk.start()
    guard.start()
    guard.join(20)
    said = capsys.readouterr().err
    assert "rank 0 (process 0 on h0) at host-a:29500 has not answered for 0.1 s" in said
    far.store.gone.set()
    talk.join(20)
    assert "rank 0 (process 0 on h0) is gone without a word, last in 'step 3'" in capsys.readouterr().err
    assert not guard.is_alive() and not talk.is_alive()


def test_busy_work_moves_and_waiting_does_not(dog):
    own = dog()
    with watchdog.busy():
        own.say_where()
        before = own.moves
        own.say_where()
        assert own.moves == before

        def work():  # in another thread, as this one takes the beating thread's place here
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                sum(range(1000))

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        own.say_where()
        assert own.moves == before + 1
    own.say_where()
    assert own.moves == before + 1


def test_each_report_of_progress_is_a_move(dog):
    own = dog()
    with progress("tokenise", 2, "texts") as tell:
        tell(1)
        tell(1)
    assert (own.moves, own.phase) == (2, "tokenise")


@pytest.mark.parametrize(
    "module, name, inner, call",
    [
        ("data.cache", "fingerprint", "digested", lambda f: f(Path("x"))),
        ("data.inputs", "split_of", "held_out_files", lambda f: f(None, SimpleNamespace(split_data=None), 3)),
        ("data.item_fields", "read_fields", "opened", lambda f: f([], SimpleNamespace(text_keys=()))),
        ("model.backbone", "pretrained", "quiet", lambda f: f("x", None, False, None)),
        ("model.backbone", "read_tensors", "load_file", lambda f: f("x")),
        ("engine.manifest", "described", "digested", lambda f: f(Path(__file__))),
        ("evaluation.faiss_index", "FaissIndex", "gpus_of", None),
        ("run.hub", "directory_of", "named", lambda f: f("no/model", "--model_dir")),
    ],
)  # fmt: skip
def test_whatever_lasts_before_the_first_step_is_busy(dog, monkeypatch, module, name, inner, call):
    """Inside, the rank says so; behind, it says again what it said before."""
    own, module = dog(), importlib.import_module(f"pixelrec_train.{module}")

    class Reached(Exception):
        pass

    def reached(*args, **kwargs):
        raise Reached(own.busy, own.phase)

    if call is None:
        from pixelrec_train.libraries import import_faiss

        monkeypatch.setattr(import_faiss().IndexFlatIP, "add", reached)
        call = lambda f: f(Vectors(np.zeros((2, 4), "float32")), gpus=[])  # noqa: E731
    else:
        monkeypatch.setattr(module, inner, reached)
    with pytest.raises(Reached) as found:
        call(getattr(module, name))
    busy, phase = found.value.args
    assert busy == 1 and phase != "start" and (own.busy, own.phase) == (0, "start")


@pytest.mark.parametrize(
    "says", ["(pid 12) is killed by signal: Killed. ", "(pid(s) 12, 13) exited unexpectedly"]
)
def test_a_worker_that_was_killed_is_a_sentence(says):
    status, text = exit_status.judged(RuntimeError(f"DataLoader worker {says}"))
    assert status == 1 and text.count("\n") == 0 and "Traceback" not in text
    assert text.startswith("error: DataLoader worker (pid") and "Lower --dataloader_num_workers" in text
    error = KeyError("Caught KeyError in DataLoader worker process 0.")
    lines = []
    exit_status.write_down(lines.append, "stopped after step 3", error)
    exit_status.write_down(lines.append, "stopped after step 3", RuntimeError(f"DataLoader worker {says}"))
    assert "step 3: 'Caught" in lines[0] and "step 3: DataLoader" in lines[1] and "Lower" in lines[2]


def test_before_the_ranks_have_met_the_first_alone_speaks(monkeypatch, capsys):
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        log.say(f"of rank {rank}")
    assert capsys.readouterr().out == "of rank 0\n"


def test_a_log_keeps_the_words_of_our_own_errors(dog, monkeypatch):
    """However much they sound like the loss of another rank; what sounds so and is not ours is cut short."""
    monkeypatch.setattr(watchdog, "watcher", dog())
    monkeypatch.setattr(watchdog, "lost_peer", lambda error: None)
    lines = []
    for error in (InputError("--output_dir /data/gloo is not free."), RuntimeError("gloo: pair.cc:537")):
        exit_status.write_down(lines.append, "stopped after step 3", error)
    assert lines == [
        "stopped after step 3: --output_dir /data/gloo is not free.",
        "stopped after step 3: another rank does not answer",
    ]
