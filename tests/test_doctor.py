"""The doctor: what it says about a machine that lacks something, and that it is well where tests run."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, run_command

from pixelrec_train.machine import hardware, launch, packages, pins
from pixelrec_train.machine.finding import OK, PROBLEM, WARN


def doctor(*flags, **environment):
    return run_command([sys.executable, "scripts/doctor.py", *flags], afresh=True, **environment)


@pytest.fixture
def requirements(tmp_path):
    def write(*lines):
        (tmp_path / "requirements.txt").write_text("\n".join(lines))
        return tmp_path / "requirements.txt"

    return write


@pytest.mark.launch
def test_a_real_run_finds_this_machine_ready_and_leaves_nothing(tmp_path):
    before = set(tmp_path.iterdir())
    result = doctor("--output_dir", tmp_path / "run", "--logging_dir", tmp_path / "logs/run")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("ready to train: 0 problems")
    items = {line[9:22].strip() for line in lines[:-2]}
    assert items >= {
        "python", "packages", "accelerator", "launcher", "threads", "compiler", "disk", "memory", "open files"
    }  # fmt: skip
    launched = next(line for line in lines if "launcher" in line)
    assert launched.startswith("ok") and "2 ranks on cpu met in" in launched
    assert set(tmp_path.iterdir()) == before


def test_a_broken_torch_and_an_unwritable_place_are_lines_and_not_a_traceback(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError('libcudart.so.13: no such file')")
    (tmp_path / "file").touch()
    result = doctor("--output_dir", tmp_path / "file/run", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    problems = [line for line in result.stdout.splitlines() if line.startswith("PROBLEM")]
    words = [
        "torch, deepspeed cannot be imported: ImportError: libcudart.so.13",
        "torch cannot be asked",
        "not tried, as ranks need torch",
        f"{tmp_path}/file is not a directory",
    ]
    assert len(problems) == len(words)
    assert all(word in line for word, line in zip(words, problems, strict=True)), problems


def test_help_and_unknown_flags_need_no_library(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('broken')")
    result = doctor("--help", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0 and "--launch_timeout" in result.stdout
    result = doctor("--output_dri", "x", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2 and "Did you mean --output_dir?" in result.stderr


def test_missing_and_other_versions_are_named_with_the_command_that_helps(requirements, monkeypatch):
    there = {"torch": "2.13.0+cpu", "numpy": "1.26.4", "faiss-gpu": "1.15.1"}
    monkeypatch.setattr(pins, "installed", there.get)
    path = requirements(
        "# pins", "torch==2.13.0", "numpy==2.2.6  # arrays", "faiss-cpu==1.15.1", "deepspeed==0.19.8", "",
        "# tests and benchmarks", "pytest==9.2.0",
    )  # fmt: skip
    found = list(packages.versions(path))
    assert [f.verdict for f in found] == [PROBLEM, WARN, WARN]
    assert found[0].found == "missing: deepspeed==0.19.8" and f"pip install -r {path}" in found[0].advice
    assert "tests" in found[1].found and "pytest==9.2.0" in found[1].found
    assert found[2].found == "numpy 1.26.4, tested with 2.2.6" and "numpy==2.2.6" in found[2].advice
    assert packages.modules(path) == ["torch", "numpy", "faiss"]  # what is missing is not imported


def test_the_repositorys_own_pins_are_all_found():
    assert [f.verdict for f in packages.versions(ROOT / "requirements.txt")] == [OK]
    assert {"torch", "faiss", "sklearn"} <= set(packages.modules(ROOT / "requirements.txt"))


def test_a_library_that_takes_its_process_with_it_is_named():
    answers = ['{"importing": "numpy"}', "a library's own words", '{"importing": "torch"}']
    found = packages.read_answers(answers) | {"status": -11}
    (finding,) = packages.imports(found)
    assert finding.verdict == PROBLEM
    assert finding.found == "torch cannot be imported: the process ends there (SIGSEGV)"


def facts(**changes):
    gpu = {"name": "NVIDIA H200", "total": 140 * 2**30, "free": 139 * 2**30, "capability": [9, 0]}
    known = {"torch": "2.13.0+cu130", "built_for": "13.0", "cores": 16, "used": True, "gpus": [gpu] * 8}
    return known | {"bf16": True} | changes


@pytest.mark.parametrize(
    "changes, there, verdict, words",
    [
        ({}, True, OK, "8 x NVIDIA H200 (140.0 GiB); torch 2.13.0 built for CUDA 13.0; bf16 yes"),
        ({"bf16": False}, True, WARN, "--bf16 False"),
        ({"used": False}, True, WARN, "DS_ACCELERATOR=cpu keeps runs on the CPU"),
        ({"gpus": [], "built_for": None}, True, WARN, "built for CPU, but there is an NVIDIA GPU"),
        ({"gpus": []}, True, WARN, "driver may be too old"),
        ({"gpus": [], "built_for": None}, False, OK, "CPU, 16 cores"),
    ],
)
def test_what_torch_sees_is_judged_beside_what_is_there(monkeypatch, changes, there, verdict, words):
    monkeypatch.setattr(hardware, "has_nvidia_gpu", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = hardware.accelerator(facts(**changes))
    assert finding.verdict == verdict and words in str(finding)


def test_a_gpu_that_others_use_is_named():
    busy = facts()["gpus"][0] | {"free": 2**30}
    finding = hardware.accelerator(facts(gpus=[*facts()["gpus"], busy]))
    assert finding.verdict == WARN and "GPU 8 has 1.0 GiB free" in finding.found


def test_directories_on_one_disk_share_a_line_and_a_full_disk_is_a_problem(tmp_path, monkeypatch):
    (finding,) = hardware.disk((tmp_path / "a/b", tmp_path / "c"))
    assert "a/b" in finding.found and "/c: " in finding.found and "hard links work" in finding.found
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20, total=2**40))
    (finding,) = hardware.disk((tmp_path,))
    assert finding.verdict == PROBLEM and "1 MiB free" in finding.found
    assert hardware.shared_memory(tmp_path).verdict == WARN
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value, gpus, verdict",
    [
        (None, 0, OK),
        ("1", 0, OK),
        ("2", 0, OK),
        ("4", 0, WARN),
        ("4", 1, OK),
        ("all", 0, WARN),
        ("0", 0, WARN),
    ],
)
def test_threads_are_too_many_when_ranks_times_threads_exceed_the_cores(monkeypatch, value, gpus, verdict):
    monkeypatch.setattr(hardware.resources, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert hardware.threads(gpus).verdict == verdict


def test_few_open_files_are_a_warning_with_the_command(monkeypatch):
    monkeypatch.setattr(hardware.resource, "getrlimit", lambda what: (256, 4096))
    finding = hardware.open_files()
    assert finding.verdict == WARN and "ulimit -n 4096" in finding.advice


def test_a_launch_that_hangs_is_ended_with_all_its_processes(tmp_path, monkeypatch):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    monkeypatch.setattr(launch, "launch", lambda ranks, gpus, port: [sys.executable, "-c", parent])
    finding = launch.launcher(0, "29500", timeout=2)
    assert finding.verdict == PROBLEM and "did not meet in 2 s" in finding.found
    pid = (tmp_path / "pid").read_text()
    for _ in range(50):
        if not alive(pid):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is left over")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_launch_that_fails_shows_the_line_that_says_why(monkeypatch):
    says = "print('a'); raise RuntimeError('no route to host')"
    monkeypatch.setattr(launch, "launch", lambda ranks, gpus, port: [sys.executable, "-c", says])
    finding = launch.launcher(0, "29500", timeout=20)
    assert finding.verdict == PROBLEM
    assert finding.found == "2 ranks failed: RuntimeError: no route to host"


def test_chosen_gpus_stay_chosen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert "localhost:3,5" in launch.launch(2, 3, "29500")
    assert "--num_gpus" in launch.launch(2, 0, "29500")
