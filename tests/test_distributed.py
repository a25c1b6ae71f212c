"""What one rank can check of the ranks: names of launchers, threads, and the order of building caches."""

import os
import socket
import subprocess
import types

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.run import launchers, meeting, network, rendezvous, resources, signals

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


FAR = {"name": "process 5 on far", "address": "10.0.0.2"}


def test_a_rank_that_does_not_come_is_named_and_so_is_one_that_comes_twice():
    store = dist.HashStore()
    assert meeting.said_before(store, 1, FAR) is None
    assert meeting.said_before(store, 1, FAR | {"name": "process 6 on far"}) == "process 5 on far"
    with pytest.raises(TimeoutError, match="after 0 minutes, 2 have not come: rank 0, 2"):
        meeting.all_come(store, 3, 0)


def test_what_is_wrong_on_one_host_is_said_on_all_before_the_last_has_come():
    store = dist.HashStore()
    store.set(meeting.PROBLEM, "rank 3 of this machine has no GPU: it has 2.")
    assert meeting.all_come(store, 2, 1) == []
    assert meeting.said(store, meeting.PROBLEM).startswith("rank 3")
    meeting.await_hearing(store, 1, 2)
    meeting.await_hearing(store, 0, 2)  # the last to leave: the other has heard


def test_another_version_or_other_code_on_one_host_is_named():
    has = {"torch": "2.13.0", "pixelrec_train": "aa"}
    near = {"name": "process 1 on near", "has": has}
    assert meeting.unequal([near, near, {"name": "one of a host without"}]) is None
    says = meeting.unequal([near, FAR | {"has": has | {"torch": "2.6.0"}}])
    assert says.startswith(
        "rank 1 (process 5 on far) has another torch (2.6.0) than rank 0 (process 1 on near: "
    )
    says = meeting.unequal([near, FAR | {"has": has | {"pixelrec_train": "bb"}}])
    assert "has other code of pixelrec_train (bb)" in says
    assert len(meeting.own_code()) == 8


def test_gloo_is_told_the_interface_that_the_hosts_share(monkeypatch):
    """Also where MASTER_ADDR means itself: 127.0.1.1 in /etc/hosts."""
    ways = {"10.0.0.2": "10.0.0.1"}
    monkeypatch.setattr(network, "own_address", lambda host, port: ways[host])
    interfaces = {"lo": ["127.0.0.1", "::1"], "eth7": ["192.168.0.9"], "ib0": ["10.0.0.1", "fe80::1%ib0"]}
    found = {k: [types.SimpleNamespace(address=a) for a in v] for k, v in interfaces.items()}
    monkeypatch.setattr(network.psutil, "net_if_addrs", lambda: found)
    for own, others, named in (
        ("10.0.0.1", [FAR], "ib0"),
        ("127.0.1.1", [{"address": "127.0.1.1"}, FAR], "ib0"),
        ("fe80::1%ib0", [FAR], "ib0"),
        (None, [], None),  # one host: gloo finds its way
    ):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # so that what comes is taken back behind the test
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")
        meeting.choose_interface({"address": own}, others)
        assert os.environ.get("GLOO_SOCKET_IFNAME") == named
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    meeting.choose_interface({"address": "10.0.0.1"}, [FAR])
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def test_the_way_to_this_machine_is_its_loopback():
    assert network.own_address("localhost", 9) in ("127.0.0.1", "::1")
    assert network.interface_of("127.0.0.1").startswith("lo") and network.is_loopback("127.0.1.1")
    assert network.interface_of("203.0.113.9") is None


@pytest.mark.parametrize(
    "host, says",
    [
        ("127.0.0.1", "2 ranks did not meet at 127.0.0.1:.*Here, 127.0.0.1 is this machine itself, 127.0.0.1."
                      ".*firewall.*MASTER_PORT.*GLOO_SOCKET_IFNAME .*NCCL_SOCKET_IFNAME"),
        ("no-such-host.invalid", "does not know or reach MASTER_ADDR no-such-host.invalid: "),
    ],
)  # fmt: skip
def test_a_host_that_does_not_reach_the_first_says_so(monkeypatch, host, says):
    environment = dict(RANK="1", WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR=host)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(resources.free_port()))
    with pytest.raises(InputError, match=says):
        meeting.meet(None, 0.01)


def test_the_first_process_of_a_container_has_no_launcher(monkeypatch):
    monkeypatch.setattr(signals.psutil, "Process", lambda: types.SimpleNamespace(parent=lambda: None))
    assert signals.launchers() == []
