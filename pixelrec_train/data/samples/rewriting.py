"""A directory of samples written anew, file by file and row by row, with some of its answers changed."""

import json
import os
import shutil
from pathlib import Path

from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.cells import CONTENT, Odd, Remarks, Row
from pixelrec_train.data.samples.dataset_file import DatasetFile
from pixelrec_train.data.samples.rows import Problem, row_counts, rows
from pixelrec_train.data.samples.writing import write_file
from pixelrec_train.errors import InputError, first_line

DATASET, FACTS = "dataset.json", "facts.json"


def read_directory(directory, flag_name="--samples"):
    """(DatasetFile, [files of it that lie in the directory]) of what scripts/build_samples.py wrote.

    What its sources name elsewhere, by a whole path, stays where it is.

    Raises:
        InputError: there is no dataset.json, or none of its files lie in the directory, or one lies elsewhere
            and is named by where it lies from here.
    """
    dataset = DatasetFile.load(Path(directory) / DATASET, f"{flag_name} {directory}:")
    inside = []
    for file in (file for source in dataset.sources for file in source.files):
        if Path(os.path.abspath(file)).is_relative_to(os.path.abspath(directory)):
            inside.append(file)
        elif not file.is_absolute() or file.is_relative_to(directory):
            raise InputError(
                f"{dataset.path} names {file}, which lies outside of {directory}, by a relative path; of a "
                f"copy that would be another file. Name its whole path."
            )
    if not inside:
        raise InputError(f"{dataset.path} names no file in {directory}, so there is nothing to write anew.")
    return dataset, inside


def read_group(path, group):
    """Yields (row in the file, Sample, its metadata) of a row group.

    Raises:
        InputError: a row is no sample, or its metadata is no JSON object.
    """
    remarks = Remarks()
    for number, cells in rows(path, group, ("uuid", "source", "metadata", *CONTENT)):
        try:
            yield number, Row(path, number, remarks).sample(cells), metadata_of(cells.get("metadata"))
        except Odd as problem:
            raise InputError(str(Problem(path, number, *problem.args))) from None


def metadata_of(cell):
    """{name: value}; empty where the cell is."""
    if cell in (None, ""):
        return {}
    try:
        found = json.loads(cell) if isinstance(cell, str | bytes) else cell
    except (ValueError, RecursionError) as error:
        raise Odd("metadata is not JSON", first_line(error).rstrip(".")) from None
    if not isinstance(found, dict):
        raise Odd("metadata is no object")
    return found


def read_rows(files):
    """Yields (key, Sample, its metadata) of every row; key: (number of the file, row in it)."""
    for number, path in enumerate(files):
        for group in range(len(row_counts(path))):
            for row, sample, facts in read_group(path, group):
                yield (number, row), sample, facts


def read_facts(directory):
    """What facts.json says; nothing where it is not there. Raises InputError where it is no JSON object."""
    path = Path(directory) / FACTS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        why = f"{path} is not valid JSON: {first_line(error)} Remove it, or copy it again."
        raise InputError(why) from None
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a JSON object. Remove it, or copy it again.")
    return found


def write_anew(directory, files, output, answers):
    """The files of a directory in another one, in the same places, row groups and order, and its lists.

    Args:
        files: as of read_directory.
        output: there, and empty.
        answers: {key: what the last message of that row says now}.
    """
    root = Path(os.path.abspath(directory))
    for path in sorted(root.rglob("*.json")):
        place = path.relative_to(root)
        if not any(part[0] in "._" for part in place.parts) and place != Path(FACTS):
            (output / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output / place)
    for number, path in enumerate(files):
        place = output / Path(os.path.abspath(path)).relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_file(
            place,
            (
                [(answered(sample, answers.get((number, row))), facts) for row, sample, facts in rows_of]
                for rows_of in (read_group(path, group) for group in range(len(row_counts(path))))
            ),
        )


def answered(sample: Sample, answer):
    """The sample with another answer at its end; None = as it is."""
    if answer is None:
        return sample
    *before, last = sample.messages
    return sample._replace(messages=(*before, last | {"content": answer}))
