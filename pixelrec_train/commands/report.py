"""The page of a run, report.html, made again from the files in its directory."""

from dataclasses import dataclass

from pixelrec_train.flags import DIRECTORY, NEW_FILE, Flags, check_paths, flag, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Flags):
    """One page of a finished run, in one file that needs no network: its table with intervals, curves, recall
    by popularity and history length, ten users, a map of its items, speed, and how to do it again.
    """

    run: str = flag("directory of a finished run of any training", positional=True)
    compared: str | None = flag(
        "--output_dir of a scripts/compare.py that judged a checkpoint of this run: its baselines stand "
        "beside",
        None,
        path=DIRECTORY,
    )
    html: str | None = flag("file to write; None = report.html in the run", None, path=NEW_FILE)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(ReportConfig, argv))
    from pixelrec_train.report.page import write_report

    path = write_report(config.run, "run", config.html, config.compared)
    print(f"Report: {path} ({path.stat().st_size / 1000:,.0f} kB)")
