"""Trackers get TensorBoard's figures under the same names, and none of them can stop a run."""

import json
import os
import shutil
import signal
import struct
import sys
import time

import pytest
from conftest import ROOT, as_flags, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixelrec_train.config import LoopFlags
from pixelrec_train.config.training import TRACKERS
from pixelrec_train.engine.session import check_places
from pixelrec_train.engine.state import TrainState
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import import_tracker
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import tracker_kinds, trackers
from pixelrec_train.run.log import RunLog
from pixelrec_train.tasks.two_tower import TwoTowerTask

ROWS = {"popularity": {"recall@10": 0.1}, "two_tower": {"recall@10": 0.3, "recall@10_ci95": [0.2, 0.4]}}
VARIABLES = ("WANDB_", "SWANLAB_", "TRACKIO_", "NETRC")


def missing(name, folder):
    """Why a package cannot be used. folder: where trackio keeps its files, for this whole process."""
    try:
        trackers.load(name, folder)
    except InputError as error:
        return str(error)


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)


class Noted:
    """A tracker that writes down what it is told, and fails where it is asked to."""

    where, fails_at = "here", None

    def __init__(self, run):
        self.run, self.told = run, []
        self.at("start")
        Noted.last = self

    def at(self, what, *told):
        self.told.append((what, *told))
        print(f"advertising of the tool at {what}")
        if what == self.fails_at:
            raise self.error

    def log(self, step, values):
        self.at("log", step, values)

    def show(self, step, rows, text, picture):
        self.at("show", step, rows, text, picture.read_bytes()[:4])

    def close(self, failed):
        self.at("close", failed)


@pytest.fixture
def noted(monkeypatch):
    monkeypatch.setitem(trackers.KINDS, "wandb", Noted)
    monkeypatch.setattr(trackers, "load", lambda name, directory: None)
    monkeypatch.setattr(Noted, "fails_at", None)
    return Noted


def a_run(folder, report_to, name=None, resumed=False, steps=(20, 40), failed=False):
    """A run's words, from its start to its end; its LoopFlags."""
    loop = LoopFlags(
        output_dir=str(folder / "results/demo"), logging_dir=str(folder / "logs/demo"), report_to=report_to,
        run_name=name,
    )  # fmt: skip
    run, events = folder / "results/demo", folder / "logs/demo/events"
    if not resumed:
        run_directory.record_start(run, loop, {}, {"ranks": 1, "data": {"rows": 7}})
    log = RunLog([run / "train.log"], run / "metrics.jsonl", events, TwoTowerTask.objective)
    log.track(loop, run, "results-demo", resumed)
    state = TrainState(total_steps=200)
    for state.step in steps:
        report = {"loss": 80 / state.step, "lr": 1e-4, "grad_norm": 0.7, "users_per_s": 9.0, "eta_s": 95}
        log.step(state, report | {"gpu_utilisation": 97.0}, epochs=5)
    log.evaluation(state, {"recall@10": 0.06}, 1, epochs=1, is_best=True)
    (run / "table.json").write_text(json.dumps(ROWS))
    (run / "table.md").write_text("| figures | of the end |\n")
    shutil.copy(ROOT / "docs/curves.png", run / "curves.png")
    log.concluded(state, loop)
    log.failed = failed
    log.close()
    return loop


def notes(folder):
    lines = (folder / "results/demo/train.log").read_text().splitlines()
    return [line[16:] for line in lines if line[9:].startswith("note | ")]


def test_a_tracker_gets_the_tags_of_tensorboard_the_config_the_table_and_the_curves(noted, tmp_path, capsys):
    a_run(tmp_path, ("wandb", "tensorboard"))
    board = EventAccumulator(str(tmp_path / "logs/demo/events")).Reload()
    told = {}
    for what, *rest in noted.last.told:
        for tag, value in rest[1].items() if what == "log" else ():
            told.setdefault(tag, []).append((rest[0], pytest.approx(value, rel=1e-6)))
    tags = [tag for tag in board.Tags()["scalars"] if not tag.startswith("final/")]  # its own
    assert told == {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in tags}
    assert {"train/loss", "train/gpu_utilisation", "train/grad_norm", "eval/recall@10"} < told.keys()
    run = noted.last.run
    assert (run.project, run.name, run.resumed) == ("pixelrec_train", "results-demo", False)
    assert run.config["learning_rate"] == 1e-4 and run.config["data"] == {"rows": 7}
    assert noted.last.told[-2:] == [
        ("show", 40, ROWS, "| figures | of the end |\n", b"\x89PNG"), ("close", False)
    ]  # fmt: skip
    out, err = capsys.readouterr()
    assert "advertising" not in out and "advertising of the tool at close" in err
    assert "| 9 users/s | gpu 97% | eta 1m35s" in out
    assert notes(tmp_path) == ["wandb: here"]


def test_a_resumed_run_has_the_names_it_began_with(noted, tmp_path):
    a_run(tmp_path, ("wandb",), "mine", failed=True)
    first = noted.last.run
    assert noted.last.told[-1] == ("close", True)
    a_run(tmp_path, ("wandb",), "another", resumed=True)
    assert noted.last.run == first._replace(resumed=True) and first.name == "mine"
    a_run(tmp_path, ("wandb",))
    assert noted.last.run.id != first.id
    (tmp_path / "results/demo/trackers.json").unlink()  # of a run that began without trackers
    a_run(tmp_path, ("wandb",), resumed=True)
    assert not noted.last.run.resumed
    (tmp_path / "results/demo/trackers.json").write_text("{")
    a_run(tmp_path, ("wandb",), resumed=True)
    assert notes(tmp_path)[-1].startswith("warning: wandb: the run goes on without: Expecting")
    run_directory.clear(tmp_path / "results/demo")
    assert not (tmp_path / "results/demo/trackers.json").exists()


@pytest.mark.parametrize("error", [RuntimeError("no route to host"), SystemExit(1), KeyError("x")], ids=repr)
@pytest.mark.parametrize("point", ["start", "log", "show", "close"])
def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(noted, tmp_path, monkeypatch, point, error):
    monkeypatch.setattr(noted, "fails_at", point)
    monkeypatch.setattr(noted, "error", error, raising=False)
    a_run(tmp_path, ("wandb",))
    warned = [note for note in notes(tmp_path) if "warning" in note]
    assert len(warned) == 1
    assert warned[0].startswith("warning: wandb has failed and the run goes on without it: ")
    assert point == "start" or noted.last.told[-1][0] == "close"  # its threads and handlers are gone
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "results/demo/metrics.jsonl").open()]
    assert kinds == ["step", "step", "eval"]


def test_signals_go_where_they_went(noted, tmp_path, monkeypatch):
    """swanlab takes Ctrl-C for itself; a run would then end without a checkpoint."""
    monkeypatch.setattr(noted, "at", lambda *_: signal.signal(signal.SIGINT, signal.SIG_IGN))
    before = signal.getsignal(signal.SIGINT)
    a_run(tmp_path, ("wandb",))
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_asked_for_must_be_there(tmp_path, monkeypatch):
    assert tuple(trackers.KINDS) == TRACKERS
    with pytest.raises(InputError, match="--report_to must name some of wandb, swanlab, trackio, or all"):
        LoopFlags(report_to=("mlflow",))
    with pytest.raises(InputError, match="--report_to must name each only once"):
        LoopFlags(report_to=("wandb", "wandb"))
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
    flags = {"output_dir": str(tmp_path / "out"), "logging_dir": str(tmp_path / "logs")}
    text = "^swanlab cannot be imported .*Install it: pip install swanlab. .*TensorBoard shows the same"
    with pytest.raises(InputError, match=text):
        check_places(LoopFlags(report_to=("swanlab", "all"), **flags))
    (tmp_path / "left_by_a_tracker/run").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="left_by_a_tracker is a directory, and no package is installed"):
        import_tracker("left_by_a_tracker")
    assert trackers.asked_for(("all",), tmp_path) == [] == trackers.asked_for(("tensorboard",), tmp_path)


def test_who_has_not_logged_in_works_offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    (home / ".swanlab").mkdir(parents=True)
    for tool, login in (("WANDB", tracker_kinds.wandb_login), ("SWANLAB", tracker_kinds.swanlab_login)):
        assert not login() and tracker_kinds.mode_of(tool, login()) == "offline"
        with monkeypatch.context() as here:
            here.setenv(f"{tool}_MODE", "online")
            assert tracker_kinds.mode_of(tool, login()) is None
        with monkeypatch.context() as here:
            here.setenv(f"{tool}_API_KEY", "x")
            assert login() and tracker_kinds.mode_of(tool, login()) is None
    (home / ".netrc").write_text("machine example.com login user password x\n")
    assert not tracker_kinds.wandb_login()
    (home / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    assert tracker_kinds.wandb_login()
    (home / ".netrc").write_text("machine\n")
    assert not tracker_kinds.wandb_login()
    (home / ".swanlab/.netrc").write_text("")
    assert tracker_kinds.swanlab_login()


def real(name, tmp_path, monkeypatch):
    """Two sittings of one run with the real package, offline; the notes of the second."""
    if reason := missing(name, tmp_path):
        pytest.skip(reason)
    a_run(tmp_path, (name,), failed=True)
    a_run(tmp_path, (name,), resumed=True, steps=(60,))
    assert not [note for note in notes(tmp_path) if "warning" in note]
    return notes(tmp_path)[-1], json.loads((tmp_path / "results/demo/trackers.json").read_text())["id"]


def test_real_wandb_offline(tmp_path, monkeypatch):
    note, own_id = real("wandb", tmp_path, monkeypatch)
    folders = sorted((tmp_path / "logs/demo/wandb").glob(f"offline-run-*-{own_id}"))
    assert f"offline, upload with: wandb sync {folders[-1]}" in note and "--append" in note
    points, configs, media = [], [], []
    for folder in dict.fromkeys(folders):
        for record in whole(next(folder.glob("*.wandb"))):
            items = {item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
                     for item in record.history.item}  # fmt: skip
            points += [items] if items else []
            configs += [item.key for item in record.run.config.update]
        media += [path.suffix for path in (folder / "files/media").rglob("*.*")]
    losses = [(point["step"], point["train/loss"]) for point in points if "train/loss" in point]
    assert losses == [(20, 4.0), (40, 2.0), (60, 80 / 60)]
    assert [p["step"] for p in points if "eval/recall@10" in p] == [40, 60]
    assert {"learning_rate", "versions"} <= set(configs) and {".png", ".json"} <= set(media)


def whole(file, seconds=20):
    """Its records, as soon as the last one is there: finish() comes back a moment before."""
    until = time.monotonic() + seconds
    while not (records := list(records_of(file))) or records[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < until
        time.sleep(0.05)
    return records


def records_of(file):
    """Protocol buffers in a .wandb file: chunks in blocks of 32 KiB, as LevelDB's log has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if at + 7 + size > len(data):
            return  # not written to its end yet
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole of a record, or its last chunk
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_real_swanlab_offline(tmp_path, monkeypatch):
    note, own_id = real("swanlab", tmp_path, monkeypatch)
    assert f"offline, upload with: swanlab sync {tmp_path}/logs/demo/swanlab/run-*-{own_id}" in note
    folders = sorted((tmp_path / "logs/demo/swanlab").glob(f"run-*-{own_id}"))
    written = b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*.swanlab"))
    assert len(folders) == 2 and b"train/loss" in written and b"eval/recall@10" in written
    assert "learning_rate" in (folders[0] / "files/config.yaml").read_text()
    assert {path.suffix for path in (folders[0] / "media").rglob("*.*")} == {".txt", ".png"}


def test_real_trackio(tmp_path, monkeypatch):
    note, _ = real("trackio", tmp_path, monkeypatch)
    import trackio

    assert f"in {trackio.TRACKIO_DIR}, to see it: TRACKIO_DIR=" in note
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("pixelrec_train")
    told = SQLiteStorage.get_logs("pixelrec_train", name)
    losses = [(values["step"], values["train/loss"]) for values in told if "train/loss" in values]
    assert name == "results-demo" and losses == [(20, 4.0), (40, 2.0), (60, 80 / 60)]
    assert [values["step"] for values in told if "eval/recall@10" in values] == [40, 60]
    assert any("curves" in values and "| figures" in json.dumps(values["table"]) for values in told)
    assert SQLiteStorage.get_run_config("pixelrec_train", name)["learning_rate"] == 1e-4


def test_a_training_tells_every_tracker_that_is_there(demo_config, tmp_path):
    there = [name for name in TRACKERS if not missing(name, tmp_path)]
    flags = as_flags(
        demo_config, output_dir=tmp_path / "out", logging_dir=tmp_path / "logs/x", max_steps=2,
        logging_steps=1, report_to="all", run_name="two steps", project="tests",
    )  # fmt: skip
    environment = {name: "" for name in os.environ if name.startswith(VARIABLES)}
    done = run_command([sys.executable, "scripts/train_pixelrec.py", *flags], HOME=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "out/train.log").read_text()
    told = [line.split("|")[1].split(":")[0].strip() for line in log.splitlines() if "upload with" in line
            or "trackio show" in line]  # fmt: skip
    assert told == there and "warning" not in log
    for name in there:
        assert any((tmp_path / "logs/x" / name).iterdir())
