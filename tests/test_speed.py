"""What the log says of speed is what was counted, over the time it took."""

from types import SimpleNamespace

import pytest
import torch

from pixelrec_train import distributed
from pixelrec_train.engine import log_sums
from pixelrec_train.engine.device_peak import own_peak, peak_tflops
from pixelrec_train.engine.log_sums import LogSums, mean_of
from pixelrec_train.engine.state import TrainState
from pixelrec_train.run.log import RunLog
from pixelrec_train.tasks.two_tower import TwoTowerTask

BATCH = SimpleNamespace(counts={"tokens": 10})


@pytest.fixture
def clock(monkeypatch):
    """clock(3) lets three seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(log_sums.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def summed(clock, counted):
    """LogSums of a batch a second, each of so many operations."""
    sums = LogSums()
    for flops in counted:
        clock(1)
        sums.add(torch.tensor(1.0), {}, BATCH, True, flops)
    return sums


@pytest.mark.parametrize(
    "counted, tflops",
    [([2 * 10**12, 4 * 10**12], 3.0), ([7 * 10**18] * 50, 7e6), ([10**12, None], 0.5)],
    ids=["few", "large", "some"],
)
def test_operations_are_counted_over_the_time_they_took(clock, counted, tflops):
    sums = summed(clock, counted)
    with sums.paused():
        clock(100)  # evaluation
    report = sums.close()
    assert report["tflops_per_s"] == pytest.approx(tflops, rel=1e-12)
    assert report["tokens_per_s"] == pytest.approx(10) and "mfu_pct" not in report  # on a CPU


def test_what_nobody_counts_is_not_reported(clock):
    assert not {"tflops_per_s", "mfu_pct", "flops"} & summed(clock, [None, None]).close().keys()


def test_the_share_of_the_devices_peak_is_reported_where_that_is_known(clock, monkeypatch):
    monkeypatch.setattr(log_sums, "own_peak", lambda: 989)
    report = summed(clock, [494_500_000_000_000]).close()
    assert report["tflops_per_s"] == pytest.approx(494.5) and report["mfu_pct"] == pytest.approx(50)


def test_a_window_that_was_saved_counts_on_also_on_fewer_ranks_and_from_an_older_checkpoint(clock):
    sums = summed(clock, [10**12, 3 * 10**12])
    again = LogSums.from_dict(sums.as_dict())
    assert again.close()["tflops_per_s"] == sums.close()["tflops_per_s"] == 2.0
    # Two ranks' work is now one's, in the same time.
    other = summed(clock, [5 * 10**12, 5 * 10**12])
    assert mean_of([sums.as_dict(), other.as_dict()])["flops"] == 14e12
    older = {name: value for name, value in sums.as_dict().items() if name != "flops"}
    for saved in (older, mean_of([older, older])):
        assert "tflops_per_s" not in LogSums.from_dict(saved).close()


@pytest.mark.parametrize("before, after", [(1, 2), (2, 1)], ids=["1to2", "2to1"])
def test_a_quotient_goes_on_over_another_number_of_ranks(before, after, monkeypatch):
    """3 labels of 12 nats in a window's first batch, 1 of 8 in its second: 5 nats a label, whoever counts."""

    def add(sums, ranks, total, count):
        for rank, one in enumerate(sums):  # all of it lies on the last rank
            share = (total, count) if rank == ranks - 1 else (0.0, 0)
            one.add(torch.tensor(2.0), {"text_loss": share}, BATCH, True)
        return sums

    saved = [one.as_dict() for one in add([LogSums() for _ in range(before)], before, 12.0, 3)]
    monkeypatch.setattr(distributed, "world_size", lambda: after)
    ranks = add([LogSums.from_dict(mean_of(saved)) for _ in range(after)], after, 8.0, 1)
    total, count = (sum(float(one.sums[f"text_loss/{part}"]) for one in ranks) for part in ("sum", "count"))
    assert (total, count) == (20, 4) and {float(one.sums["loss"]) for one in ranks} == {4.0}


@pytest.mark.parametrize(
    "name, peak",
    [
        ("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312), ("A100-PCIE-40GB", 312), ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165), ("NVIDIA GeForce RTX 3090", 71), ("NVIDIA B200", 2250),
        ("Tesla V100-SXM2-32GB", 125), ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H100 PCIe", None), ("NVIDIA H200 NVL", None), ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA L40", None), ("NVIDIA GeForce GTX 1080", None), ("", None),
    ],
)  # fmt: skip
def test_a_peak_is_that_of_the_card_or_none(name, peak):
    assert peak_tflops(name) == peak


def test_a_cpu_has_no_peak_and_a_gpu_is_asked_for_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    for gpu, peak in ((False, None), (True, 989)):
        monkeypatch.setattr(distributed, "uses_gpu", lambda gpu=gpu: gpu)
        assert own_peak() == peak


def test_the_log_line_shows_them_once(tmp_path, capsys):
    log = RunLog([], tmp_path / "metrics.jsonl", tmp_path / "tensorboard", TwoTowerTask.objective)
    report = {"loss": 1.0, "tokens_per_s": 52_000.0, "tflops_per_s": 412.3, "mfu_pct": 41.69, "step_ms": 20.0}
    log.step(TrainState(total_steps=9, step=1), report | {"eta_s": 5}, epochs=1)
    log.close()
    said = capsys.readouterr().out
    assert "| 52000 tokens/s | 412.3 TFLOP/s per rank | mfu 41.7% | 20 ms/step | eta 5s" in said


@pytest.mark.parametrize("answer, reported", [(97, {"gpu_utilisation": 97.0}), (None, {})])
def test_how_busy_the_gpu_is_is_reported_where_somebody_knows(clock, monkeypatch, answer, reported):
    def utilization():
        if answer is None:
            raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")
        return answer

    assert "gpu_utilisation" not in summed(clock, [None]).close()  # on a CPU
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(log_sums.distributed, "uses_gpu", lambda: True)
    assert log_sums.gpu_utilisation() == reported
