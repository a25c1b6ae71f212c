"""The last thing a run does: its page. What fails here costs no run: it is a line in the log."""

from pixelrec_train import distributed
from pixelrec_train.errors import first_line
from pixelrec_train.report.evidence import FILE as TOLD
from pixelrec_train.report.page import FILE, write_report

EVIDENCE = f"places.parquet and {TOLD}"


def report_at_end(log, directory, leave=None):
    """Write report.html of a run whose table stands. On rank 0; on others it does nothing.

    Args:
        leave: () -> places.parquet and report.json are there, see evidence.leave; None = there are none.
    """
    if distributed.rank() != 0:
        return
    if leave:
        attempt(EVIDENCE, leave, log.note)

    def make():
        log.block(f"Report: {write_report(directory, '--output_dir')}")

    attempt(FILE, make, log.note)


def attempt(what, work, say):
    """work(); where it fails, a line: whatever was computed before is whole, and stays so."""
    try:
        work()
    except Exception as error:  # of any kind
        say(
            f"warning: {what} could not be written ({type(error).__name__}: {first_line(error)}) All other "
            f"results are whole."
        )
