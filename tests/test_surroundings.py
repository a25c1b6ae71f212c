"""What is wrong around a run of several ranks, and not in its input: one sentence on all, and no hang.

docs/many_machines.md lists every case with its test.
"""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pixelrec_train import distributed
from pixelrec_train.data import cache
from pixelrec_train.engine import checkpoint, session
from pixelrec_train.engine.state import TrainState
from pixelrec_train.errors import InputError
from pixelrec_train.run import launchers, meeting

TOLD = dict(RANK="1", WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="h", MASTER_PORT="7")


@pytest.mark.parametrize(
    "told, says",
    [
        ({"MASTER_PORT": "http"}, "^MASTER_PORT of the environment must be a number, got 'http'"),
        ({"MASTER_PORT": "70000"}, "^MASTER_PORT must be from 1 to 65535, got 70000"),
        ({"MASTER_PORT": "0"}, "^MASTER_PORT must be from 1 to 65535, got 0"),
        ({"RANK": "2"}, "has RANK=2 of WORLD_SIZE=2; ranks count from 0"),
        ({"RANK": "-1"}, "^RANK of the environment must be a number, got '-1'"),
        ({"WORLD_SIZE": "two"}, "^WORLD_SIZE of the environment must be a number, got 'two'"),
        ({"WORLD_SIZE": ""}, "^WORLD_SIZE of the environment must be a number, got ''"),
        ({"LOCAL_RANK": "1"}, "has LOCAL_RANK=1 of LOCAL_WORLD_SIZE=1"),
    ],
)
def test_what_a_launcher_cannot_mean_is_named(told, says):
    assert launchers.named_as_torch(TOLD) == TOLD
    with pytest.raises(InputError, match=says):
        launchers.named_as_torch(TOLD | told)


def test_a_host_without_a_gpu_among_those_with_one_is_named():
    first = {"name": "process 1 on near", "has": {"kind of device": "a GPU"}}
    other = {"name": "process 5 on far", "has": {"kind of device": "the CPU"}}
    says = meeting.unequal([first, other])
    assert says.startswith("rank 1 (process 5 on far) has another kind of device (the CPU) than rank 0 (proc")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("operation", ["mkdir", "save"])
def test_a_cache_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, number, operation):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(args[0]))

    where = (Path, "mkdir") if operation == "mkdir" else (np, "save")
    monkeypatch.setattr(*where, fail)
    with pytest.raises(InputError, match=r"texts-ab cannot be written: .*Is the disk full\? See --cache_dir"):
        cache.cached(tmp_path, "texts", "ab", lambda: ({"a": np.zeros(3)}, {}))
    assert not list(tmp_path.iterdir())


def test_a_host_that_does_not_see_the_run_directory_is_named_on_all(tmp_path, monkeypatch):
    loop = SimpleNamespace(output_dir=str(tmp_path / "run"))
    monkeypatch.setattr(session, "check_places", lambda loop, going_on: None)
    monkeypatch.setattr(distributed, "gather_objects", lambda mine: [mine, False, True])
    says = "rank 2 does not see the --output_dir .*run of rank 0. On several machines it must lie on a file"
    with pytest.raises(InputError, match=says), session.claimed_directory(loop):
        raise AssertionError("it began")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_on_one_host_alone_fails_the_save_on_all(tmp_path, monkeypatch):
    """Rank 0 had room. The checkpoints before stay, and nothing half is left."""
    full = (f"[Errno {errno.ENOSPC}] No space left on device: rank-1.safetensors", None)
    monkeypatch.setattr(
        distributed, "gather_objects", lambda mine: [mine, full if isinstance(mine, tuple) else mine]
    )
    monkeypatch.setattr(checkpoint, "optimizer_state", SimpleNamespace(
        size=lambda engine: 9, file_name=lambda rank: f"rank-{rank}.safetensors",
        save=lambda engine, partial, *rest: (partial / "rank-0.safetensors").write_bytes(b"whole"),
    ))  # fmt: skip
    monkeypatch.setattr(checkpoint, "cpu_state_dict", lambda module: {})
    monkeypatch.setattr(checkpoint, "weights_size", lambda module: 9)
    monkeypatch.setattr(checkpoint.model_card, "judged_so_far", lambda judged, state: {})
    monkeypatch.setattr(checkpoint.model_card, "card", lambda *rest: "card")
    told = []
    log = SimpleNamespace(judged=(), failed_save=lambda state, place, problem: told.append(problem))
    engine = SimpleNamespace(module=SimpleNamespace(export=lambda directory, tensors: None))
    loop = SimpleNamespace(output_dir=str(tmp_path), checkpoint_layout="plain", save_total_limit=1)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "checkpoint-step-2").mkdir()
    state = TrainState(total_steps=9)
    state.step, state.batch, state.checkpoints = 3, 3, ["checkpoint-step-2"]
    standing = SimpleNamespace(engine=engine, state=state, loop=loop, log=log, loader=None)
    assert checkpoint.save_checkpoint(standing) is None
    assert told == [full[0]] and state.checkpoints == ["checkpoint-step-2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-step-2", "run.json"]
