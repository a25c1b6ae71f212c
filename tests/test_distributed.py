"""What one rank can check of the ranks: names of launchers, threads, and the order of building caches."""

import socket
import subprocess

import pytest
import torch
from conftest import ROOT

from pixelrec_train import distributed, resources
from pixelrec_train.errors import InputError
from pixelrec_train.run import launchers, rendezvous

SRUN = {
    "SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "11", "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
    "SLURM_STEP_NODELIST": "gpu[07-08,12]",
}  # fmt: skip
OPEN_MPI = {
    f"OMPI_COMM_WORLD_{n}": v for n, v in dict(RANK="3", SIZE="4", LOCAL_RANK="1", LOCAL_SIZE="2").items()
}
HYDRA = dict(PMI_RANK="3", PMI_SIZE="4", MPI_LOCALRANKID="3", MPI_LOCALNRANKS="4")
POD = dict(RANK="1", WORLD_SIZE="2", MASTER_ADDR="job-0", MASTER_PORT="234", KUBERNETES_SERVICE_HOST="h")


@pytest.mark.parametrize(
    "environment, found",
    [
        ({}, None),
        (SRUN, "9 11 1 3 gpu07 21074"),
        (
            SRUN | {"SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "a1,b2,c3", "MASTER_PORT": "7"},
            "9 11 1 4 a1 7",
        ),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "11", "SLURM_NODEID": "0"}, "9 11 1 11 127.0.0.1 21074"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "5"}, None),  # a batch script itself
        (OPEN_MPI | {"MASTER_ADDR": "node0"}, "3 4 1 2 node0 29500"),
        (HYDRA, "3 4 3 4 127.0.0.1 29500"),
        (HYDRA | {"PMI_SIZE": "1"}, None),
        (POD, "1 2 0 1 job-0 234"),
    ],
)
def test_each_launchers_names_become_torchs(environment, found):
    wanted = dict(zip(launchers.OF_TORCH, found.split(), strict=True)) if found else {}
    assert launchers.named_as_torch(environment) == wanted


@pytest.mark.parametrize(
    "environment, says",
    [
        (OPEN_MPI, "Open MPI started 4 ranks on several machines.*mpirun -x MASTER_ADDR"),
        ({k: v for k, v in HYDRA.items() if k != "MPI_LOCALRANKID"}, "MPI_LOCALRANKID is not set"),
        ({k: v for k, v in SRUN.items() if k != "SLURM_STEP_NODELIST"}, "SLURM_STEP_NODELIST does not say"),
        ({"PMIX_RANK": "2"}, "PMIX_RANK=2 says which rank this is, but nothing of how many"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "has RANK=1, but no LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_a_launcher_that_says_a_part_alone(environment, says):
    with pytest.raises(InputError, match=says):
        launchers.named_as_torch(environment)


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("n1", "n1"),
        ("n[1-4]", "n1"),
        ("gpu[007,9]-ib", "gpu007-ib"),
        ("a-b2,c[1-2]", "a-b2"),
        ("r[2]s,x", "r2s"),
    ],
)
def test_the_first_of_slurms_hosts(nodes, first):
    assert launchers.first_host(nodes) == first


@pytest.mark.parametrize("variable", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE"])
def test_ranks_share_the_cores_unless_told_otherwise(monkeypatch, variable):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(resources, "cores", lambda: 16)
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE", "OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "4")
    rendezvous.share_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rendezvous.share_cores()
    assert set_to == [4]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun, which says 1 by itself to several ranks
    rendezvous.share_cores()
    assert set_to == [4, 4]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    rendezvous.share_cores()
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rendezvous.share_cores()
    assert set_to == [4, 4]


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
