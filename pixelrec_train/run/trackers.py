"""Trackers beside TensorBoard: they get its figures under the same names, and none of them can stop a run."""

import json
import secrets
import signal
import sys
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import write_json
from pixelrec_train.run.tracker_kinds import KINDS, Tracked, load

FILE = "trackers.json"  # in the run directory: what the run is called there, so that a resumed one goes on


class Trackers:
    """Those of one run. No exception leaves it: a tracker that raises one is left out from then on."""

    def __init__(self, names, run, note):
        """
        Args:
            names: of KINDS.
            run: Tracked.
            note: takes a line for the log: where a tracker's figures are, or why it has none any more.
        """
        self.note, self.running = note, {}
        for name in names:
            with self.tolerating(name):
                self.running[name] = KINDS[name](run)
        for name, tracker in self.running.items():
            note(f"{name}: {tracker.where}")

    def log(self, step, values):
        """values: {"train/loss": number, …} at an optimizer step."""
        self.each("log", step, values)

    def show(self, step, rows, text, picture):
        """The end of a run: its table, {name: {figure: value}} and as Markdown, and a PNG of its curves."""
        self.each("show", step, rows, text, picture)

    def close(self, failed=False):
        self.each("close", failed)
        self.running = {}

    def each(self, method, *arguments):
        for name, tracker in list(self.running.items()):
            with self.tolerating(name):
                getattr(tracker, method)(*arguments)

    @contextmanager
    def tolerating(self, name):
        """What a tracker raises becomes a line of the log."""
        try:
            with kept_apart():
                yield
        except (Exception, SystemExit) as error:
            self.note(f"warning: {name} has failed and the run goes on without it: {first_line(error)}")
            if tracker := self.running.pop(name, None):
                with suppress(Exception, SystemExit), kept_apart():
                    tracker.close(failed=True)


@contextmanager
def kept_apart():
    """What is printed goes to stderr; signals go where they went before: the run's own save a checkpoint."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def trackers_of(flags, run_directory, name, resumed, note):
    """Trackers, as TrackingFlags say; a run that goes on has the names it began with.

    Args:
        flags: with logging_dir.
        name: where --run_name is None.
    """
    directory, run = Path(flags.logging_dir), Path(run_directory)
    names = asked_for(flags.report_to, directory)
    if not names:
        return Trackers((), None, note)
    known = {"project": flags.project, "name": flags.run_name or name, "id": secrets.token_hex(11)[:21]}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        resumed = resumed and (run / FILE).is_file()
        if resumed:
            known = json.loads((run / FILE).read_text(encoding="utf-8"))
        else:
            write_json(run / FILE, known)
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        about = Tracked(**known, resumed=resumed, directory=directory, config=record.pop("config") | record)
    except (OSError, ValueError, TypeError) as error:
        note(f"warning: {', '.join(names)}: the run goes on without: {first_line(error)}")
        return Trackers((), None, note)
    return Trackers(names, about, note)


def asked_for(report_to, directory):
    """Names of KINDS that --report_to asks for; "all" is those that are installed.

    Raises:
        InputError: one that is named cannot be imported.
    """
    found = []
    for name in KINDS:
        try:
            if name in report_to or "all" in report_to:
                load(name, directory)
                found.append(name)
        except InputError:
            if name in report_to:
                raise
    return found
