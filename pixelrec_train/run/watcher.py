"""The threads that say where this rank is and look after others: see watchdog.py, by which all call them."""

import contextlib
import faulthandler
import json
import os
import resource
import sys
import threading
import time

BEAT = 1.0  # seconds between two words of a rank
LOST = 60.0  # seconds without a new word, or without the store's answer: the rank is gone
GRACE = 10.0  # seconds a rank has to end by itself after another failed
SILENT = 3.5  # the same as LOST where a collective has failed already
WORKING = 0.1  # share of a core, less is waiting
FAILED, ENDED = "failed", "ended"
KILLED = "killed from outside, perhaps for want of memory (dmesg would say so)."
CUT_OFF = "it was killed, its host is down, or the network between is cut."


class Watcher:
    """Of one rank."""

    def __init__(self, store, rank, names, limit_s):
        """See watchdog.start()."""
        self.store, self.rank, self.names, self.limit_s = store, rank, names, limit_s
        self.watched = range(len(names)) if rank == 0 else range(1)
        self.phase, self.moves, self.beats, self.busy, self.worked = "start", 0, 0, 0, (0.0, 0)
        # Seconds, counted in beats: after the whole process was stopped for an hour, nothing is an hour late.
        self.clock, self.answered, self.moved = 0.0, 0.0, 0.0
        self.words, self.changed = {}, dict.fromkeys(self.watched, 0.0)
        self.over = threading.Event()
        self.failed_at = None  # when another rank's failure was heard of
        self.tell = lambda text: None  # rank 0's log, when there is one
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.talk, self.guard)]

    def start(self):
        self.say_where()
        self.store.wait([str(r) for r in self.watched])
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(GRACE)

    def at(self, phase):
        self.phase, self.moves = phase, self.moves + 1

    def talk(self):
        """The thread that uses the store."""
        while not self.over.wait(BEAT):
            try:
                self.say_where()
                if self.store.check([ENDED]):
                    self.end_with_the_run()
                elif self.store.check([FAILED]):
                    self.end_with_the_others()
                else:
                    self.look_after_others()
                self.answered = self.clock
            except RuntimeError:
                self.end_without_store()
        with contextlib.suppress(RuntimeError):
            self.store.set(str(self.rank), json.dumps({"left": True}))

    def guard(self):
        """The thread that does not: where the network was cut, the store never answers."""
        while not self.over.wait(BEAT):
            self.clock += BEAT
            if self.clock - self.answered > LOST:
                place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
                self.speak(f"{self.named(0)} at {place} has not answered for {LOST:.3g} s: {CUT_OFF}")

    def say_where(self):
        self.beats += 1
        if self.busy and self.works():
            self.moves += 1
        here = {"beats": self.beats, "moves": self.moves, "phase": self.phase}
        self.store.set(str(self.rank), json.dumps(here))

    def works(self):
        """Whether this process, without this thread, has computed, read or written since the last call."""
        (seconds, blocks), used = self.worked, resource.getrusage(resource.RUSAGE_SELF)
        self.worked = time.process_time() - time.thread_time(), used.ru_inblock + used.ru_oublock
        return self.worked[0] - seconds > WORKING * BEAT or self.worked[1] > blocks

    def look_after_others(self):
        for r, word in self.read(self.watched).items():
            before = self.words.get(r, {})
            if word != before:
                self.changed[r] = self.clock
            if word.get("moves") != before.get("moves"):
                self.moved = self.clock
            self.words[r] = word
        here = [r for r, word in self.words.items() if "left" not in word]
        gone = [r for r in here if r != self.rank and self.clock - self.changed[r] > LOST]
        if gone:
            texts = [f"{self.named(r)} is gone without a word, last in {self.phase_of(r)}" for r in gone]
            self.end(f"{shortened(texts)}: no sign of life for {LOST:.3g} s; {CUT_OFF}", [])
        elif self.rank == 0 and self.clock - self.moved > self.limit_s:
            self.end_standing_run(here)

    def end_standing_run(self, here):
        moves = {r: self.words[r]["moves"] for r in here}
        behind = [r for r in here if moves[r] == min(moves.values())]
        late = [f"{self.named(r)} in {self.phase_of(r)}" for r in behind]
        wait = [f"rank {r} in {self.phase_of(r)}" for r in here if r not in behind]
        sentence = f"nothing has moved for {self.limit_s / 60:.3g} minutes: {shortened(late)}" + (
            f" keeps the others waiting ({shortened(wait)})." if wait else " wait for each other."
        )
        sentence += " If that was slowness and no fault, raise --collective_timeout_minutes."
        self.end(sentence, behind)

    def end(self, sentence, behind):
        """End all ranks, with the sentence where no other has spoken; those behind show where they stand."""
        if self.first_to_fail():
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        self.tell(f"stopped: {sentence}")
        self.store.set(ENDED, json.dumps(behind))
        self.end_with_the_run()

    def end_with_the_run(self):
        if self.rank in json.loads(self.store.get(ENDED)):
            faulthandler.dump_traceback()  # where exactly it stands, in every thread
        self.linger()
        os._exit(1)

    def end_with_the_others(self):
        self.failed_at = self.clock if self.failed_at is None else self.failed_at
        if self.clock - self.failed_at > GRACE:
            os._exit(1)

    def end_without_store(self):
        """It has gone with rank 0. The main thread finds out, where its collective fails; or is ended."""
        if not self.over.wait(GRACE):
            if self.failed_at is not None:
                os._exit(1)
            self.speak(f"{self.named(0)} is gone without a word, last in {self.phase_of(0)}: {KILLED}")

    def speak(self, sentence):
        """End this rank, where no other can be asked."""
        if self.speaks_for_machine():
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        os._exit(1)

    def read(self, ranks):
        """{rank: what it last said}"""
        said = self.store.multi_get([str(r) for r in ranks])
        return {r: json.loads(word) for r, word in zip(ranks, said, strict=True)}

    def silent(self):
        """Sentences about ranks that say nothing new for SILENT seconds."""
        ranks = range(len(self.names))
        before = self.read(ranks)
        time.sleep(SILENT)
        after = self.read(ranks)
        return [
            f"{self.named(r)} is gone without a word, last in {word['phase']!r}"
            for r, word in after.items()
            if word == before[r] and "left" not in word
        ]

    def first_to_fail(self):
        """Whether no other rank has failed before; without a store, the first of each machine says yes."""
        if self.failed_at is not None:
            return False
        me = f"rank {self.rank}"
        try:
            return self.store.compare_set(FAILED, "", me).decode() == me
        except RuntimeError:
            return self.speaks_for_machine()

    def speaks_for_machine(self):
        return self.rank == 1 or os.environ.get("LOCAL_RANK") == "0"

    def linger(self):
        """On the rank that holds the store: long enough for the others to hear of a failure."""
        if self.rank == 0:
            time.sleep(2 * BEAT)

    def named(self, r):
        return f"rank {r} ({self.names[r]})"

    def phase_of(self, r):
        return repr(self.words.get(r, {}).get("phase", "start"))


def shortened(texts, most=4):
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
