"""Pages that follow the code; UPDATE_DOCS=1 python -m pytest tests/test_docs.py writes what is generated."""

import importlib
import os
import re

import pytest
from conftest import ROOT
from test_floors import FLOORS, PACKAGE

from pixelrec_train.__main__ import COMMANDS
from pixelrec_train.flags import REQUIRED, as_text, fields_of

EXTENDING = ROOT / "docs/extending.md"
SASREC = (
    "model/sasrec_model.py", "model/sequential_model.py", "tasks/next_item.py",
    "trainings/train_sequential.py",
)  # fmt: skip
AGAIN = "run: UPDATE_DOCS=1 python -m pytest tests/test_docs.py"


def generated(path, text):
    """Compare a page with what it must be, or write it."""
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, AGAIN


def flags_of(command):
    """The configuration a command reads: among those its module knows, the one that has inherited most."""
    module = importlib.import_module(f"pixelrec_train.commands.{command}")
    configs = [value for name, value in vars(module).items() if name.endswith("Config")]
    return max(configs, key=lambda config: len(config.__mro__))


def table(config):
    yield from ("| flag | default | meaning |", "|---|---|---|")
    for f in fields_of(config):
        dashes = "" if f.metadata["positional"] else "--"
        name = ", ".join(f"`{dashes}{name}`" for name in (f.name, *f.metadata["alias"]))
        default = "required" if f.default is REQUIRED else f"`{as_text(f.default) or repr('')}`"
        meaning = re.sub(r"<(?=[a-z]+>)", "&lt;", f.metadata["help"])  # or a browser takes it for a tag
        yield f"| {name} | {default.replace(f'{ROOT}/', '')} | {meaning} |"


def test_the_flag_tables_are_generated_from_the_commands():
    lines = [
        "# All flags",
        "",
        "What every command takes, as its `--help` says it; made from the code by `tests/test_docs.py`.",
        "",
        "`python scripts/NAME.py` and `python -m pixelrec_train NAME` are the same. Several values are",
        "separated by commas, and `None`, `True` and `False` may be written in any case. Every command also",
        "takes `--config FILE.yaml`: flags from a file, over which the command line wins.",
    ]
    for command, what in COMMANDS.items():
        rows = list(table(flags_of(command)))
        if command == "train_pixelrec":  # tests/test_readme.py looks for these
            rows = ["<!-- flags -->", *rows, "<!-- /flags -->"]
        lines += ["", f"## {command}", "", f"{what[0].upper()}{what[1:]}.", "", *rows]
    generated(ROOT / "docs/flags.md", "\n".join(lines) + "\n")


def test_the_worked_example_is_counted_in_lines():
    counts = [len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in SASREC]
    rows = ["| file | lines |", "|---|---:|"]
    rows += [f"| `{name}` | {count} |" for name, count in zip(SASREC, counts, strict=True)]
    text = EXTENDING.read_text(encoding="utf-8")
    before, after = text.split("<!-- lines -->")[0], text.split("<!-- /lines -->")[1]
    generated(EXTENDING, "\n".join([f"{before}<!-- lines -->", *rows, f"<!-- /lines -->{after}"]))
    assert text.count("\n") < 150


def test_the_worked_example_is_the_code():
    """Each part of a block, between two …, stands so in the file that its first line names."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", EXTENDING.read_text(encoding="utf-8"), re.S)
    assert blocks
    for path, block in blocks:
        for part in block.split("…\n"):
            assert part in (ROOT / path).read_text(encoding="utf-8"), f"{path} has other lines than:\n{part}"


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 12_000


def test_the_map_in_the_readme_is_true():
    """Every module and room of the package stands on its floor, and nothing else does."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    floors = re.findall(r"^  (\d)  (\S+(?: \S+)*)", readme, re.M)
    shown = {name.strip("/"): int(floor) for floor, names in floors for name in names.split()}
    assert shown == FLOORS
    for name in FLOORS:
        assert (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_opens_with_what_it_is_for_and_is_named_in_the_readme(page):
    title, blank, first = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ") and not blank and re.match(r"[A-Z]", first)
    assert f"](docs/{page.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_promise_names_a_test_that_exists():
    """A name that ends in … begins one."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    for name, rest in re.findall(r"`(test_\w+)(…?)`", page):
        assert re.search(rf"def {name}{'' if rest else '[(]'}", sources), name
