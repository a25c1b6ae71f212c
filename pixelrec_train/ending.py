"""How a process of ours ends: its exit status, and who of many ranks says why."""

import functools
import signal
import sys
import traceback

from pixelrec_train import watchdog
from pixelrec_train.errors import InputError, StopRequested, TrainingStopped


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
            sys.exit(128 + signal.SIGINT if stop.number == signal.SIGINT else 0)
        except (InputError, TrainingStopped) as error:
            if watchdog.first_to_fail():
                print(f"error: {error}", file=sys.stderr, flush=True)
                watchdog.linger()
            sys.exit(2 if isinstance(error, InputError) else 3)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            lost = watchdog.lost_peer(error)
            if watchdog.first_to_fail():
                if lost:
                    print(f"error: {lost}", file=sys.stderr, flush=True)
                else:
                    traceback.print_exc()
                watchdog.linger()
            sys.exit(1)

    return wrapped
