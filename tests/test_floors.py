"""The house keeps its floors: a module imports only from lower ones and its own folder."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

FLOORS = {
    "errors": 0, "files": 0, "flags": 0, "config": 0, "distributed": 0, "batch": 0, "libraries": 0,
    "sentence_encoder": 0, "clock": 0,
    "run": 1, "losses": 1, "semantic_id": 1, "untrained": 1,
    "data": 2, "model": 2, "engine": 2, "machine": 2,
    "tasks": 3, "evaluation": 3,
    "recommend": 4, "report": 4, "rl": 4, "export": 4, "serving": 4,
    "trainings": 5,
    "commands": 6, "__main__": 7,
}  # fmt: skip
ONE_ADDRESS = {
    "bitsandbytes": ("libraries.py",),
    "deepspeed": ("engine/", "run/rendezvous.py"),
    "faiss": ("libraries.py",),
    "fastapi": ("serving/", "libraries.py"),
    "matplotlib": ("evaluation/report.py",),
    "peft": ("libraries.py",),
    "pyarrow": ("data/",),
    "scipy": ("untrained/",),
    "sklearn": ("untrained/",),
    "tensorboard": ("run/board.py", "run/log.py"),
    "uvicorn": ("serving/", "libraries.py"),
}
PACKAGE = ROOT / "pixelrec_train"


@functools.cache
def nodes(path):
    """Of the syntax tree of a module."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path):
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "pixelrec_train":
                yield from (f"pixelrec_train.{alias.name}" for alias in node.names)


def modules():
    return [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]


def room(path):
    return Path(path).relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_imports_only_from_lower_floors_and_its_own_folder():
    for path in modules():
        here = room(path)
        for name in imports(path):
            if not name.startswith("pixelrec_train."):
                continue
            there = name.split(".")[1]
            lower = FLOORS[there] < FLOORS[here] or FLOORS[there] == FLOORS[here] == 0
            assert there == here or lower, f"{path.relative_to(ROOT)} imports {name}"


def test_heavy_libraries_have_one_address():
    for path in modules():
        for name in imports(path):
            for library, addresses in ONE_ADDRESS.items():
                if library in name.split("."):
                    place = str(path.relative_to(PACKAGE))
                    assert place.startswith(addresses), f"{place} imports {name}"


NOT_WHOLE = (
    "recommend", "report", "rl", "serving", "export", "evaluation", "engine", "data", "model", "losses",
    "tasks", "semantic_id",
)  # fmt: skip


def test_below_trainings_nobody_takes_the_whole_configuration():
    for path in modules():
        for node in nodes(path) if room(path) in NOT_WHOLE else ():
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                assert "config" not in names, f"{path.relative_to(ROOT)}: {ast.unparse(node.args)}"
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("pixelrec_train.config"):
                whole = {"TrainConfig", "GenerativeConfig"} & {alias.name for alias in node.names}
                assert not whole, f"{path.relative_to(ROOT)} imports {whole}"


def test_a_file_fits_in_a_head():
    for path in modules():
        assert len(path.read_text().splitlines()) <= 235, path


def test_nothing_runs_code_from_files():
    """No eval, no pickle, no remote code, no shell."""
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "torch.load", "os.system"), path
                for keyword in node.keywords:
                    risky = keyword.arg in ("trust_remote_code", "shell", "allow_pickle")
                    assert not (risky and ast.unparse(keyword.value) == "True"), path


EVERY_COMMAND = """
import importlib, pkgutil, sys
from pixelrec_train import commands

for module in pkgutil.iter_modules(commands.__path__):
    importlib.import_module(f"pixelrec_train.commands.{module.name}")
print(sorted({"torch", "transformers", "deepspeed", "pandas", "numpy"} & sys.modules.keys()))
"""


def test_help_and_mistyped_flags_wait_for_no_heavy_library():
    ran = subprocess.run([sys.executable, "-c", EVERY_COMMAND], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
