"""How a process of ours ends: its exit status, and who of many ranks says why."""

import functools
import os
import re
import signal
import sys
import traceback

from pixelrec_train.errors import InputError, StopRequested, TrainingStopped, of_a_place
from pixelrec_train.run import watchdog

OF_A_WORKER = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\)")


def speak_plainly(main):
    """Wrap a command's main: one sentence on stderr and an exit status.

    0 = finished, or saved and stopped on SIGTERM or SIGUSR1; 130 = Ctrl-C; 2 = bad input; 3 = training cannot
    go on; 1 = anything else, with a traceback. Of all ranks only the first to fail speaks: what follows on
    the others (most meet the same bad input, or lose their peer in the middle of a collective) is not news.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except StopRequested as stop:
            status = 128 + signal.SIGINT if stop.number == signal.SIGINT else 0
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        except Exception as error:
            status, text = judged(error)
            if watchdog.first_to_fail():
                print(text, file=sys.stderr, flush=True)
                watchdog.linger()
        watchdog.leave()
        sys.exit(status)

    return wrapped


def judged(error):
    """(exit status, what is said) of an exception."""
    if isinstance(error, InputError):
        return 2, f"error: {error}"
    if isinstance(error, TrainingStopped):
        return 3, f"error: {error}"
    if of_a_place(error):
        return 2, f"error: {error.filename}: {error.strerror}."
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("pixelrec_train"):
        return 1, f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate"
    if why := reason(error):
        return 1, f"error: {why}"
    return 1, traceback.format_exc().rstrip()


def reason(error):
    """A sentence where it is another process that something happened to; else None."""
    if found := OF_A_WORKER.search(str(error)):
        return (
            f"{found[0]}, which prepared batches, was ended from outside, perhaps for want of memory (dmesg "
            f"would say so). Lower --dataloader_num_workers; --resume auto goes on from the last checkpoint."
        )
    return watchdog.lost_peer(error)


def write_down(note, where, error):
    """Lines for a run's log. note: takes a line; the first at once, as a launcher ends ranks soon."""
    text = "another rank does not answer" if watchdog.of_a_peer(error) else str(error)
    note(f"{where}: {text or type(error).__name__}")
    if os.environ.get("RANK", "0") == "0" and (why := reason(error)):  # the others have no log
        note(f"stopped: {why}")
