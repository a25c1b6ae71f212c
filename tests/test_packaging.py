"""What pip installs: the tested ranges, a command, and the files the package looks for beside itself."""

import re
import sys

import pytest
from conftest import ROOT

from pixelrec_train import __main__, __version__, files
from pixelrec_train.machine.pins import pins

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_dependencies_are_the_ranges_of_requirements_txt():
    ranges = [f"{pin.name}>={pin.floor},<{pin.ceiling}" for pin in pins() if pin.needed]
    assert PROJECT["project"]["dependencies"] == ranges
    assert PROJECT["project"]["version"] == __version__


def test_the_command_is_our_main_with_its_subcommands(capsys, monkeypatch):
    module, _, name = PROJECT["project"]["scripts"]["pixelrec"].partition(":")
    assert getattr(sys.modules[module], name) is __main__.main
    __main__.main(["--help"])
    said = capsys.readouterr().out
    assert all(re.search(rf"^  {command} +\w", said, re.M) for command in __main__.COMMANDS)


def test_what_an_installed_package_looks_for_is_shipped():
    shipped = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {f"pixelrec_train/shipped/{name}": (ROOT / name).exists() for name in shipped} == dict.fromkeys(
        shipped.values(), True
    )
    assert files.ROOT == ROOT  # in a checkout
    assert {"configs", "requirements.txt"} == set(shipped)
