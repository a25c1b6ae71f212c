"""What lies in a run directory, read for its reader."""

import json
from pathlib import Path
from typing import NamedTuple

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import existing_directory
from pixelrec_train.report import evidence
from pixelrec_train.run.checkpoints import MANIFEST, STATE, run_of

PLACES = "places.parquet"  # data.user_places.FILE, which brings pyarrow with it
EVALUATED = "best_model/eval-test"  # what scripts/evaluate_pixelrec.py leaves in a run


class Run(NamedTuple):
    directory: Path
    record: dict  # run.json
    rows: dict  # table.json
    events: list[dict]  # metrics.jsonl
    notes: list[str]  # what stands below the table in table.md
    places: object  # data.user_places.UserPlaces; None where there are none
    told: dict  # report.json; {} where there is none
    best_step: int | None  # at which best_model was saved

    @property
    def flags(self):
        return self.record["config"]

    @property
    def steps(self):
        return [event for event in self.events if event["kind"] == "step"]

    @property
    def evaluations(self):
        return [event for event in self.events if event["kind"] == "eval"]

    @property
    def ranked(self):
        """{name: row of the table} of models that rank; {} of a run that ranks nothing."""
        return {name: row for name, row in self.rows.items() if "users" in row}


def read_run(directory, flag_name):
    """The Run of a finished training.

    Raises:
        InputError: it is none, has not ended, or a file of it is damaged.
    """
    directory = existing_directory(directory, flag_name)
    refuse_checkpoint(directory, flag_name)
    if not (directory / "run.json").is_file():
        near = sorted(path.parent for path in directory.glob("*/run.json"))
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"{flag_name} {directory} is no run: it holds no run.json.{hint}")
    if not (directory / "table.json").is_file():
        raise InputError(
            f"{flag_name} {directory} is a run that has not ended: it holds no table.json. Let it end, or go "
            f"on with --resume auto."
        )
    record, rows = (json_of(directory / name, dict) for name in ("run.json", "table.json"))
    if not isinstance(record.get("config"), dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise InputError(f"{flag_name} {directory} was not written by a training run of ours.")
    return Run(
        directory, record, rows, events_of(directory / "metrics.jsonl"), notes_of(directory / "table.md"),
        places_of(directory), told_of(directory), best_step(directory),
    )  # fmt: skip


def refuse_checkpoint(directory, flag_name):
    if (directory / MANIFEST).is_file() and (directory / STATE).is_file():
        raise InputError(f"{flag_name} {directory} is a checkpoint. Did you mean {run_of(directory)}?")


def json_of(path, kind):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {first_line(error)}") from None
    if not isinstance(found, kind):
        raise InputError(f"{path} is damaged: it holds {type(found).__name__}, not {kind.__name__}.")
    return found


def events_of(path):
    """Lines of metrics.jsonl; [] where it is not there. A last line that was cut is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    found = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            found.append({"kind": event["kind"], "step": int(event["step"])} | event)
        except (ValueError, KeyError, TypeError):
            if line.endswith("\n"):
                raise InputError(f"{path} line {number} is damaged: {line.strip()[:60]!r}.") from None
    return found


def notes_of(path):
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in lines if line.strip() and not line.startswith("|")]


def found_in(directory, name):
    """A file of a run, or of an evaluation of its best_model; None where neither has it."""
    there = (directory / name, directory / EVALUATED / name)
    return next((path for path in there if path.is_file()), None)


def places_of(directory):
    path = found_in(directory, PLACES)
    if path is None:
        return None
    from pixelrec_train.data.user_places import read_places  # brings pyarrow with it

    return read_places(path)


def told_of(directory):
    path = found_in(directory, evidence.FILE)
    return json_of(path, dict) if path else {}


def best_step(directory):
    """Where training stood when best_model was saved; None where it does not say so."""
    path = directory / "best_model" / STATE
    step = json_of(path, dict).get("step") if path.is_file() else None
    return step if isinstance(step, int) else None
