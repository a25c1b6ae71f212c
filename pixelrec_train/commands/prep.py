"""Read another project's files as our tables, or spell the ids of a text in another way."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.files import made_whole, replaceable_directory, write_json
from pixelrec_train.flags import (
    DIRECTORY,
    FILE,
    FILE_NAME,
    NEW_DIRECTORY,
    NEW_FILE,
    REQUIRED,
    Flags,
    Rule,
    at_least,
    check_paths,
    flag,
    given,
    one_of,
    parse_args,
)
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.semantic_id.codecs import CODECS, LETTERS

FACTS, IDS = "facts.json", "semantic_ids.json"
SIZES = (256,) * 4
BELONGS = {  # flag -> the sources it is for
    "data_dir": ("onerec_think", "minionerec"), "output_dir": ("onerec_think", "minionerec"),
    "name": ("onerec_think", "minionerec"), "limit": ("onerec_think",), "their_files": ("onerec_think",),
    "code_base": ("minionerec",), "input": ("text",), "output": ("text",), "codec_from": ("text",),
    "codec_to": ("text",), "codebook_sizes": ("onerec_think", "text"),
}  # fmt: skip
NEEDED = {
    "onerec_think": ("data_dir", "output_dir"), "minionerec": ("data_dir", "output_dir"),
    "text": ("input", "output", "codec_from", "codec_to"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PrepConfig(Flags):
    """Read another project's files as our tables: items.csv, interactions.csv, semantic_ids.json, of
    minionerec also split.csv, and facts.json. What cannot be taken is counted and named.

    onerec_think reads NAME.pretrain.json and sequential_data_processed.txt; minionerec its CSVs of train,
    valid and test, index.json, item.json and info.txt. text spells all ids in a file in another way.
    """

    source: str = flag("whose files are read: onerec_think, minionerec; or text", REQUIRED, one_of(*NEEDED))
    data_dir: str | None = flag("directory that holds them", None, path=DIRECTORY, alias=("data-dir",))
    output_dir: str | None = flag("directory to write", None, path=NEW_DIRECTORY, alias=("output-dir",))
    overwrite: bool = flag("replace what an earlier prep wrote to output_dir, or --output", False)
    name: str | None = flag(
        "of the data set, as its files are called: Beauty, Industrial_and_Scientific; None = there is one",
        None,
        FILE_NAME,
    )
    limit: int | None = flag(
        "onerec_think: items and lines of sequences that are read, to try it; None = all", None, at_least(1)
    )
    their_files: bool = flag(
        "onerec_think: write the files of its own step as well, NAME_items_onerec.parquet and "
        "NAME_sequences_{train,val,test}.parquet, ids as semantic_ids_llm",
        False,
    )
    code_base: int = flag(
        "minionerec: its first code, which becomes 0; with 0 ids stay spelled as they are, also where theirs "
        "begin with 1",
        0,
        one_of(0, 1),
    )
    codebook_sizes: tuple[int, ...] = flag(
        "onerec_think, text: codes of each level; none = 256 of each, of text four",
        (),
        Rule(
            f"needs 1 to {len(LETTERS)} sizes of 1 to 1,048,576",
            lambda sizes: len(sizes) <= len(LETTERS) and all(1 <= size <= 2**20 for size in sizes),
        ),
    )
    input: str | None = flag("text: a file with ids: prose, JSON, JSON lines, CSV", None, path=FILE)
    output: str | None = flag("text: file to write", None, path=NEW_FILE)
    codec_from: str | None = flag(f"text: spelling of its ids: {', '.join(CODECS)}", None, one_of(*CODECS))
    codec_to: str | None = flag("text: the spelling they get", None, one_of(*CODECS))

    def __post_init__(self):
        super().__post_init__()
        if absent := [name for name in NEEDED[self.source] if getattr(self, name) is None]:
            raise InputError(f"--source {self.source} needs --{' and --'.join(absent)}.")
        if self.codec_from and self.codec_from == self.codec_to:
            raise InputError(f"--codec_from and --codec_to are both {self.codec_to}: nothing would change.")


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(PrepConfig, argv))
    for name, sources in BELONGS.items():
        if name in given(config) and config.source not in sources:
            raise InputError(f"--{name} is for --source {' or '.join(sources)}. Leave it out.")
    for line in respell(config) if config.source == "text" else convert(config):
        print(line)


def respell(config):
    """Yields lines to print once the file is written."""
    output = Path(config.output)
    if output.exists():
        if output.samefile(config.input):
            raise InputError(f"--output {output} is --input itself. Choose another.")
        if not config.overwrite:
            raise InputError(f"--output {output} exists. Choose another, or add --overwrite to replace it.")
    from pixelrec_train.data.convert.respelling import Respelling, convert

    respelling = Respelling(config.codec_from, config.codec_to, config.codebook_sizes or SIZES)
    yield from convert(Path(config.input), output, respelling)
    yield f"made {output}"


def convert(config):
    """Yields lines to print once the directory is written, whole or not at all."""
    output, marks = Path(config.output_dir), (FACTS, IDS)
    if replaceable_directory(output, "--output_dir", marks, "prep", "tables", config.overwrite):
        if Path(config.data_dir).resolve().is_relative_to(output.resolve()):
            raise InputError(
                f"--data_dir {config.data_dir} lies in --output_dir {output}, which is replaced. Choose "
                f"another."
            )
    tables, name = read(config)

    def make(directory):
        tables.write(directory)
        if config.their_files:
            from pixelrec_train.data.convert.onerec_think_parquet import write_their_files

            write_their_files(directory, name, tables)
        write_json(directory / FACTS, tables.facts)

    made_whole(output, make)
    files = sorted(path.name for path in output.iterdir())
    yield from tables.said
    yield f"made {output}: {', '.join(files)}"


def read(config):
    """(Tables, name of the data set)"""
    if config.source == "onerec_think":
        from pixelrec_train.data.convert import onerec_think

        return onerec_think.read(config.data_dir, config.name, config.limit, config.codebook_sizes)
    from pixelrec_train.data.convert import minionerec_reading

    return minionerec_reading.read(config.data_dir, config.name, config.code_base), config.name
