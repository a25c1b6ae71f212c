"""One run at a time in a directory, and never over a finished one by accident."""

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from conftest import ROOT

from pixelrec_train import distributed
from pixelrec_train.engine import manifest
from pixelrec_train.engine.resume import check_same_on_all_ranks
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


def test_a_run_of_another_host_is_refused_where_locks_hold_within_a_host(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "FRESH", 0.02)
    lock, over = tmp_path / "run.lock", threading.Event()
    lock.write_text("77 on elsewhere")
    with open(lock, "a") as file:
        other = threading.Thread(target=run_directory.keep_fresh, args=(file, over))
        other.start()
        with pytest.raises(InputError, match=r"another run \(process 77 on elsewhere\) is writing"):
            run_directory.check_free(tmp_path, overwrite=True)
        over.set()
        other.join()
    run_directory.check_free(tmp_path, overwrite=True)  # it was killed
    assert run_directory.holder(tmp_path) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_sentence(tmp_path, monkeypatch, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_directory.fcntl, "flock", flock)
    with pytest.raises(InputError, match="cannot lock .*-o flock"), run_directory.lock(tmp_path / "run"):
        pass


def test_other_flags_or_data_on_one_host_are_named(monkeypatch, demo_config):
    facts, other = {"data": {"interactions": "ab12"}}, {"data": {"interactions": "cd34"}}
    stage_2, stage_3 = ({"zero_optimization": {"stage": stage}} for stage in (2, 3))
    told = []
    monkeypatch.setattr(distributed, "gather_objects", lambda mine: told.append(mine) or [told[0], mine])
    check_same_on_all_ranks(demo_config, facts, stage_2)
    elsewhere = replace(demo_config, item_model_dir="/elsewhere", local_rank=3)
    check_same_on_all_ranks(elsewhere, facts, stage_2)
    with pytest.raises(
        InputError, match="the interactions of the data is cd34 on rank 1, and ab12 on rank 0"
    ):
        check_same_on_all_ranks(demo_config, other, stage_2)
    with pytest.raises(InputError, match="--learning_rate is 0.5 on rank 1, and 0.0001 on rank 0"):
        check_same_on_all_ranks(replace(demo_config, learning_rate=0.5), facts, stage_2)
    for other, says in (
        (stage_3, 'zero_optimization of .* JSON is {"stage": 3} on rank 1, and {"stage": 2}'),
        (stage_2 | {"bf16": {}}, "settings of the DeepSpeed JSON is bf16, zero.* on rank 1"),
    ):
        with pytest.raises(InputError, match=says):
            check_same_on_all_ranks(demo_config, facts, other)


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
