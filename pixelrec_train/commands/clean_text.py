"""Rows of text files that are worth training on: limits of length, duplicates, near duplicates."""

import json
from collections import Counter
from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.files import possible_file, whole_file
from pixelrec_train.flags import DISTINCT, Flags, Rule, at_least, check_paths, flag, one_of, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class CleanTextConfig(Flags):
    """Copy the rows of text files that are worth training on to one file of JSON lines."""

    files: tuple[str, ...] = flag(
        "files, directories or patterns: .txt, JSON lines, JSON, Parquet", positional=True, repeated=True
    )
    output: str = flag('file to write: JSON lines; a line of a .txt file becomes {"text": …}')
    min_characters: int | None = flag("shorter texts go; None = none", 1, at_least(1), alias=("min_length",))
    max_characters: int | None = flag(
        "longer texts go; None = none", None, at_least(1), alias=("max_length",)
    )
    exact: bool = flag("texts that were there before go, but for case and white space", True)
    similarity: float | None = flag(
        "near duplicates go: this share of their 5-character pieces is common (MinHash); None = they stay",
        0.8,
        Rule("must be in (0, 1]", lambda share: 0 < share <= 1),
    )
    text_fields: tuple[str, ...] = flag(
        "keys of a row, the first that is not empty is its text; else its chat",
        ("text", "content", "document", "body"),
        DISTINCT,
    )
    document_by: str = flag("of a .txt file: a line or the file", "line", one_of("line", "file"))
    overwrite: bool = flag("replace --output", False)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(CleanTextConfig, argv))
    if not config.files:
        raise InputError("no file is named. Which texts?")
    if possible_file(config.output, "--output").exists() and not config.overwrite:
        raise InputError(f"--output {config.output} is there already. Name another, or add --overwrite.")
    from pixelrec_train.data.texts.cleaning import Cleaner
    from pixelrec_train.data.texts.forms import text_of
    from pixelrec_train.data.texts.reading import files_of, rows_of

    cleaner = Cleaner(config.min_characters, config.max_characters, config.exact, config.similarity)
    reasons, kept = Counter(), 0
    with whole_file(config.output) as out:
        for path in files_of(config.files, "the files"):
            for place, row in rows_of(path, config.document_by):
                text, problem = text_of(place, row, config.text_fields)
                reason = problem or cleaner.why_not(text)
                if reason:
                    reasons[reason] += 1
                    continue
                kept += 1
                row = {"text": row} if isinstance(row, str) else row
                out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    total = kept + reasons.total()
    print(f"{kept:,} of {total:,} rows kept, in {config.output}")
    for reason, count in reasons.most_common():
        print(f"  {count:,} left out: {reason}")
