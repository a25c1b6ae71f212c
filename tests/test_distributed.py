"""What one rank can check of the ranks: names of launchers, threads, and the order of building caches."""

import socket
import subprocess

import pytest
import torch
from conftest import ROOT

from pixelrec_train import distributed, resources
from pixelrec_train.errors import InputError
from pixelrec_train.run import rendezvous


def test_open_mpis_names_become_torchs(monkeypatch):
    for name, value in dict(RANK="3", SIZE="4", LOCAL_RANK="1", LOCAL_SIZE="2").items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    monkeypatch.setenv("MASTER_ADDR", "node0")
    assert rendezvous.ranks_of_mpirun() == {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node0", "MASTER_PORT": "29500",
    }  # fmt: skip
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    assert rendezvous.ranks_of_mpirun() == {}


@pytest.mark.parametrize("variable", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE"])
def test_ranks_share_the_cores_unless_told_otherwise(monkeypatch, variable):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(resources, "cores", lambda: 16)
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "4")
    rendezvous.share_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rendezvous.share_cores()
    assert set_to == [4]


def test_without_a_group_everything_works_as_on_one_rank():
    x = torch.ones(2, 3, requires_grad=True)
    assert distributed.all_gather_with_grad(x) is x
    assert distributed.gather_objects(5) == [5] and distributed.from_first_rank("a") == "a"
    assert distributed.mean_over_ranks({"a": torch.tensor(2.0), "b": 3}) == {"a": 2.0, "b": 3.0}


def test_an_error_of_the_first_rank_reaches_the_others(monkeypatch):
    """The first one fails, passes the barrier all the same, and nobody waits for ever."""
    barriers = []
    monkeypatch.setattr(distributed, "barrier", lambda: barriers.append(1))
    with pytest.raises(ZeroDivisionError), distributed.first_on_each_machine():
        _ = 1 / 0
    assert barriers == [1]


def test_a_port_in_use_is_a_sentence(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in rendezvous.ONE_RANK.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MASTER_PORT", port)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        with pytest.raises(InputError, match=f"127.0.0.1:{port} is in use by another program.*--master_port"):
            rendezvous.initialise(1)


def test_more_ranks_than_gpus_is_a_sentence():
    rendezvous.check_gpu_of(1, 2)
    with pytest.raises(InputError, match="rank 2 of this machine has no GPU: it has 2.*--num_gpus 2"):
        rendezvous.check_gpu_of(2, 2)
    command = "source scripts/launcher.sh; launcher_for 9 2"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(
        "error: 9 ranks need a GPU each, and this machine has 2. Set NUM_GPUS to 2"
    )


def test_half_of_a_launchers_environment_is_refused_by_name(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="RANK=0, but no LOCAL_RANK, MASTER_ADDR, MASTER_PORT.*unset RANK"):
        rendezvous.initialise(1)


def test_few_open_files_are_made_more_or_named(monkeypatch):
    limits, asked = (64, 100_000), []
    monkeypatch.setattr(rendezvous.resource, "getrlimit", lambda what: limits)
    monkeypatch.setattr(rendezvous.resource, "setrlimit", lambda what, pair: asked.append(pair))
    rendezvous.allow_files()
    assert asked == [(4096, 100_000)]
    limits = (64, 64)
    with pytest.raises(InputError, match="may open 64 files here .*ulimit -n 4096"):
        rendezvous.allow_files()
