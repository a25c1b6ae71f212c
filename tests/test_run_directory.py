"""One run at a time in a directory, and never over a finished one by accident."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from pixelrec_train.engine import manifest
from pixelrec_train.errors import InputError
from pixelrec_train.files import write_json
from pixelrec_train.run import directory as run_directory


def test_a_finished_run_is_not_overwritten_unless_asked(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="already holds an unfinished run.*--overwrite"):
        run_directory.check_free(tmp_path, overwrite=False)
    run_directory.check_free(tmp_path, overwrite=True)


def test_a_second_run_is_refused_while_the_first_writes_and_welcome_when_it_was_killed(tmp_path):
    code = (
        "import sys, time; from pixelrec_train.run import directory as run_directory\n"
        f"with run_directory.lock({str(tmp_path)!r}): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"another run \(process {holder.pid} on"):
        run_directory.check_free(tmp_path, overwrite=True)
    holder.kill()
    holder.wait()
    run_directory.check_free(tmp_path, overwrite=True)


def test_overwriting_removes_what_runs_write_and_nothing_else(tmp_path):
    for name in ("run.json", "table.md", "notes.txt", "checkpoint-epoch-1/x", "best_model/y", "mine/z"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    outside = tmp_path / "mine"
    (tmp_path / "checkpoint-epoch-2").symlink_to(outside)
    run_directory.clear(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "notes.txt"]
    assert (outside / "z").exists()  # a link is removed, what it points to is not


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": "拉面"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": "拉面"}


def test_what_only_looks_like_a_part_of_a_run_is_not_touched(tmp_path):
    (tmp_path / "best_model").mkdir()
    with pytest.raises(InputError, match="holds best_model, but no run.json"):
        run_directory.check_free(tmp_path, overwrite=True)


def test_a_link_among_half_directories_is_removed_and_what_it_points_to_is_not(tmp_path):
    run, precious = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    precious.mkdir()
    (run / "checkpoint-epoch-1.partial").symlink_to(precious)
    run_directory.forget_after(run, 0)
    assert precious.is_dir() and not (run / "checkpoint-epoch-1.partial").is_symlink()
    (run / "checkpoint-epoch-1").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        manifest.remove(run / "checkpoint-epoch-1")
    assert precious.is_dir()
