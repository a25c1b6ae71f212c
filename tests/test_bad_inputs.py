"""Bad input ends in one sentence on stderr and leaves nothing behind. The inputs are data: bad_inputs/*.json.

A case of bad_inputs/<theme>.json changes one thing in a folder that would train:
    name     what is wrong
    command  plan (train with --dry_run 1; the usual one), train, evaluate, compare or demo
    flags    flags of the command to set; null leaves one out
    files    {path: how it changes}, see `change`
    says     what the sentence must contain, a regular expression
"""

import dataclasses
import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, as_flags

from pixelrec_train import rendezvous
from pixelrec_train.commands import compare, demo, evaluate, train
from pixelrec_train.commands.inputs import read_inputs
from pixelrec_train.ending import speak_plainly
from pixelrec_train.engine import manifest
from pixelrec_train.engine.state import TrainState
from pixelrec_train.model.hllm_model import HLLMModel

THEMES = sorted((ROOT / "tests/bad_inputs").glob("*.json"))
CASES = [
    pytest.param(case, id=f"{theme.stem}: {case['name']}")
    for theme in THEMES
    for case in json.loads(theme.read_text(encoding="utf-8"))
]
COMMANDS = {
    "plan": train.main, "train": train.main, "evaluate": evaluate.main, "compare": compare.main,
    "demo": demo.main,
}  # fmt: skip
COMPLETE = re.compile(r"cache(/(interactions|item_text)-[0-9a-f]{16}(/\w+\.(npy|json))?)?")


@pytest.fixture(scope="session")
def good_folder(demo, demo_config, tmp_path_factory):
    """Data, towers, a DeepSpeed JSON, a finished run (done/), a stopped one (stopped/), one of ids (ids/)."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(demo, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache", "run", "logs"))
    shutil.copy(ROOT / "configs/ds_config_zero2.json", folder / "ds.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = flags_of(demo_config)
        inputs = read_inputs(config)
        shutil.rmtree("cache")
        for checkpoint, id_only in (
            ("done/best_model", False), ("stopped/checkpoint-epoch-1", False), ("ids/best_model", True),
        ):  # fmt: skip
            write_checkpoint(Path(checkpoint), dataclasses.replace(config, id_only=id_only), inputs)
        Path("done/table.json").write_text("{}")
    return folder


def write_checkpoint(checkpoint, config, inputs):
    """An untrained one, of a run as `config` describes it."""
    model = HLLMModel.starting(config, inputs.interactions.item_ids, inputs.split.train_counts)
    checkpoint.mkdir(parents=True)
    model.export(checkpoint, model.state_dict(), config.item_model_dir)
    config = dataclasses.replace(config, output_dir=str(checkpoint.parent))
    run = {"config": dataclasses.asdict(config), "ranks": 1} | inputs.facts()
    for place in (checkpoint, checkpoint.parent):
        (place / "run.json").write_text(json.dumps(run))
    (checkpoint / "train_state.json").write_text(json.dumps(TrainState(total_steps=20, step=20).as_dict()))
    manifest.write_manifest(checkpoint, {})


@pytest.fixture
def folder(good_folder, tmp_path, monkeypatch):
    """A copy of it to spoil, as the current directory of the only rank."""
    shutil.copytree(good_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rendezvous, "initialise", lambda timeout_minutes: None)
    return tmp_path


def flags_of(demo_config):
    return dataclasses.replace(
        demo_config, interaction_data="interactions.csv", text_data="items.csv", cache_dir="cache",
        item_model_dir="towers/item_llm", user_model_dir="towers/user_llm", output_dir="out/run",
        logging_dir="logs/run", deepspeed="ds.json",
    )  # fmt: skip


def arguments(command, demo_config, changes):
    """The command line; without any changes it is a good one."""
    config = vars(flags_of(demo_config))
    if command == "demo":
        config = {"text_data": "new/items.csv", "interaction_data": "new/interactions.csv"}
        config |= {"towers_dir": "new/towers"}
    elif command == "plan":
        config = config | {"dry_run": 1}
    elif command != "train":
        config = {name: config[name] for name in ("cache_dir", "output_dir")}
        config |= {"checkpoint": "done/best_model"}
    if command == "compare":
        config |= {
            "interaction_data": "interactions.csv",
            "text_data": "items.csv",
            "logging_dir": "logs/run",
        }
        config |= {"text_keys": "title", "deepspeed": "ds.json"}
    return as_flags({name: value for name, value in (config | changes).items() if value is not None})


def change(path, how):
    """Spoil a file. None: it goes. A string: its new text. Else one of the ways below."""
    path, (way, value) = Path(path), next(iter(how.items())) if isinstance(how, dict) else ("text", how)
    before = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if how is None:
        return
    if way == "folder":
        return path.mkdir()
    path.write_bytes({
        "text": lambda: value.encode(),
        "latin1": lambda: value.encode("latin1"),
        "encoding": lambda: before.decode().encode(value),
        "hex": lambda: bytes.fromhex(value),
        "gzip": lambda: gzip.compress(before),
        "keep_bytes": lambda: before[:value],
        "keep_lines": lambda: b"".join(before.splitlines(keepends=True)[:value]),
        "append": lambda: before + value.encode(),
        "replace": lambda: before.replace(value[0].encode(), value[1].encode()),
        "json": lambda: json.dumps(value).encode(),
        "set": lambda: json.dumps(json.loads(before) | value).encode(),
        "copy_of": lambda: Path(value).read_bytes(),
    }[way]())  # fmt: skip


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(case, folder, demo_config, capfd):
    for path, how in case.get("files", {}).items():
        change(path, how)
    command, before = case.get("command", "plan"), everything(folder)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command](arguments(command, demo_config, case.get("flags", {})))
    out, err = capfd.readouterr()
    assert stop.value.code == 2
    assert re.fullmatch(r"error: .*[.?)]\n", err) and len(err) < 600, err
    assert re.search(case["says"], err), err
    assert "Traceback" not in out + err
    after = everything(folder)
    new = {path for path in after if not COMPLETE.fullmatch(path)} - before.keys()
    changed = {path for path in before if path not in after or before[path] != after[path]}
    assert not new | changed


def test_what_the_system_says_of_a_place_is_a_sentence_and_a_bug_keeps_its_traceback(tmp_path, capfd):
    @speak_plainly
    def reads(path):
        open(path).close()

    with pytest.raises(SystemExit) as stop:
        reads(tmp_path)
    assert (stop.value.code, capfd.readouterr().err) == (2, f"error: {tmp_path}: Is a directory.\n")
    with pytest.raises(SystemExit) as stop:
        reads(tmp_path / "a file that we should have written")
    assert stop.value.code == 1 and "FileNotFoundError" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["plan", "evaluate"])
def test_the_same_folder_is_fine_before_it_is_spoilt(command, folder, demo_config, capfd):
    COMMANDS[command](arguments(command, demo_config, {}))
    assert "error" not in capfd.readouterr().err


def test_the_table_is_long_and_no_claim_is_made_twice():
    names = [case.id for case in CASES]
    assert len(names) == len(set(names)) >= 250
