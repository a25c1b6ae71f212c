"""Several machines: what DeepSpeed takes for granted of a hostfile, and the command that goes on.

ssh and pdsh are stand-ins; the real ones are in benchmarks/two_hosts.py.
"""

import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from pixelrec_train.errors import InputError
from pixelrec_train.machine import hosts
from pixelrec_train.run import continuing
from pixelrec_train.run.launchers import through_pdsh


@pytest.mark.parametrize(
    "text, says",
    [
        (None, "does not exist (looked from "),
        ("", "names no machine; a line of it is 'name slots=8'"),
        ("# none\n", "names no machine"),
        ("a slots=0\n", "has a line 'a slots=0'; each must be 'name slots=8'"),
        ("a slots=4\nb:4\n", "has a line 'b:4'"),
        ("a slots=4 gpus=4\n", "has a line 'a slots=4 gpus=4'"),
        ("a slots=four\n", "has a line 'a slots=four'"),
        ("a slots=4\nb slots=4\na slots=2\n", "names a twice; a machine has one line"),
    ],
)  # fmt: skip
def test_a_hostfile_that_names_no_hosts_is_one_sentence_in_both_languages(tmp_path, text, says):
    file = tmp_path / "hosts"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as found:
        hosts.read_hostfile(file)
    command = ["bash", "-c", "source scripts/hostfile.sh; ranks_of_hostfile"]
    read = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"HOSTFILE": str(file)}, text=True, capture_output=True
    )
    assert says in str(found.value) and read.returncode == 2
    assert read.stderr == f"error: {found.value}\n"


def test_both_read_the_same_hosts(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# mine\n  a slots=4\n\nb   slots=2 max_slots=8  # old\nc slots=10#\n")
    assert hosts.read_hostfile(file) == {"a": 4, "b": 2, "c": 10}
    command = ["bash", "-c", "source scripts/hostfile.sh; hosts_of_hostfile"]
    read = subprocess.run(command, cwd=ROOT, env=os.environ | {"HOSTFILE": str(file)}, capture_output=True)
    assert read.stdout == b"a 4\nb 2\nc 10\n"


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that makes the only ssh, or pdsh, there is."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def make(name, text):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return make


@pytest.mark.parametrize(
    "there, ssh, says",
    [
        ("", None, "there is no ssh here, with which DeepSpeed reaches them. .*apt install openssh-"),
        ("ssh", "exit 0", "there is no pdsh here, .*apt install pdsh.*Or start torchrun on each machine"),
        ("ssh pdsh", "echo 'ssh: connect to host b port 22: Connection refused' >&2; exit 255",
         "^b does not let this machine in: ssh: connect to host b port 22: Connection refused. DeepSpeed "
         "needs 'ssh b' to work without a question"),
        ("ssh pdsh", "echo 'Permission denied (publickey,password).' >&2; exit 255", "Permission denied"),
        ("ssh pdsh", "exit 255", "^b does not let this machine in: ssh ended without a word"),
        ("ssh pdsh", "exit 1", "^b has no .*python.*, or no directory .*, where ranks are to run"),
        ("ssh pdsh", "read -t 9 <> <(:)", "^b has not answered ssh for 0.2 s"),
    ],
)  # fmt: skip
def test_a_host_that_is_not_reached_is_one_sentence(tools, monkeypatch, there, ssh, says):
    """Of two; the first answers."""
    monkeypatch.setattr(hosts, "PATIENCE", 0.1 if "read" in str(ssh) else 15)
    for name in there.split():
        tools(name, f'[ "$5" != a ] || exit 0\n{ssh}')
    with pytest.raises(InputError, match=says) as found:
        hosts.check_hosts("hosts", ["a", "b"])
    assert "\n" not in str(found.value)


def test_what_deepspeed_hands_on_is_what_counts_here_and_what_people_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("OMP_NUM_THREADS=3\nNCCL_DEBUG=INFO\n")
    for name, value in {"DS_ENV_FILE": "mine", "OMP_NUM_THREADS": "1", "HF_TOKEN": "secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with open(hosts.handed_on()) as file:
        lines = file.read().splitlines()
    assert lines[:2] == ["OMP_NUM_THREADS=1", "DS_ACCELERATOR=cpu"] and "secret" not in "".join(lines)
    assert f"PIXELREC_LAUNCHER={platform.node()}:{os.getpid()}" in lines
    assert lines[-2:] == ["OMP_NUM_THREADS=3", "NCCL_DEBUG=INFO"]  # the last counts


def test_a_signal_to_a_script_reaches_ranks_that_came_over_ssh_and_not_the_launcher():
    """They are no children of it: a rank of this launch, and one of another."""
    launcher = subprocess.Popen(["sleep", "60"])
    mine, other = (
        os.environ | {"LOCAL_RANK": "0", "PIXELREC_LAUNCHER": f"{platform.node()}:{process}"}
        for process in (launcher.pid, launcher.pid + 1)
    )
    ranks = [subprocess.Popen(["sleep", "60"], env=told) for told in (mine, other)]
    time.sleep(0.2)
    command = ["bash", "-c", f"source scripts/launcher.sh; signal_ranks TERM {launcher.pid}"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, check=True)
    try:
        assert ranks[0].wait(10) == -signal.SIGTERM
        assert ranks[1].poll() is None and launcher.poll() is None
    finally:
        for process in (launcher, *ranks):
            process.kill()
            process.wait()


WORDS = ["", "plain", "a b", "it's", "a|b", "$HOME", "a $HOME `b` \\c", 'say "x y"', "%h", "50%", "a;b*"]
WORDS += ["ä ö", "--x="]


def test_words_reach_ranks_on_other_machines_as_they_are(tools):
    """What DeepSpeed does to them, then pdsh, then a shell."""
    from deepspeed.launcher.multinode_runner import PDSHRunner

    runner = object.__new__(PDSHRunner)
    runner.args = type("Arguments", (), {"user_args": [through_pdsh(word) for word in WORDS]})
    sent = " ".join(runner.parse_user_args())
    sent = sent.replace("%%", "\0").replace("%h", "host-b").replace("\0", "%")
    script = f"import sys; print(sys.argv[1:] == {WORDS!r})"
    read = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join([sys.executable, '-ISc', script])} {sent}"], capture_output=True
    )
    assert read.stdout == b"True\n", read


def test_deepspeed_is_started_with_these_words_and_of_one_host_as_they_are(tools, tmp_path, monkeypatch):
    """On one host no shell reads them."""
    started = []
    monkeypatch.setattr(hosts.os, "execve", lambda *what: started.append(what))
    for name in ("ssh", "pdsh"):
        tools(name, "exit 0")
    file = tmp_path / "hosts"
    for text, word in (("a slots=2\n", ""), ("a slots=2\nb slots=2\n", "''")):
        file.write_text(text)
        flags = ["--hostfile", str(file), "--master_port", "7", "scripts/x.py", "--item_prompt", ""]
        monkeypatch.setattr(sys, "argv", ["hosts", *flags])
        hosts.main()
        _, words, environment = started.pop()
        runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "critical"]
        assert words == [*runner, *flags[:-1], word] and Path(environment["DS_ENV_FILE"]).is_file()


FLAGS = ["--text_keys", "a b", "--item_prompt", "", "--resume", "last"]
ON = "--text_keys 'a b' --item_prompt '' --resume auto"
RANK = ["py", "scripts/train_pixelrec.py", *FLAGS]
LAUNCH = ["py", "-u", "-m", "deepspeed.launcher.launch", "--world_info=e30=", "--master_addr=h"]
LAUNCH += ["--master_port=7", "scripts/train_pixelrec.py", *FLAGS]


@pytest.mark.parametrize(
    "above, ranks, several, says",
    [
        ([["bash"]], 1, False, f"To go on: py scripts/train_pixelrec.py {ON}"),
        ([LAUNCH, ["py", "bin/deepspeed", "--num_gpus", "2", *RANK[1:]], ["bash", "run.sh"]], 2, False,
         f"To go on: py bin/deepspeed --num_gpus 2 scripts/train_pixelrec.py {ON}"),
        ([["torchrun", "--nnodes", "2", *RANK[1:]], ["bash"]], 4, True,
         f"To go on, on every host as before: torchrun --nnodes 2 scripts/train_pixelrec.py {ON}"),
        ([["slurmstepd"]], 4, True, f"To go on, behind the same launcher: py scripts/train_pixelrec.py {ON}"),
        ([LAUNCH, ["sshd"]], 4, True,
         f'To go on: {sys.executable} -m deepspeed.launcher.runner --hostfile "$HOSTFILE" --master_addr=h '
         "--master_port=7 scripts/train_pixelrec.py --text_keys 'a b' "
         "--item_prompt ''\"'\"''\"'\"'' --resume auto"),
    ],
)  # fmt: skip
def test_a_run_that_is_stopped_ends_with_the_command_that_goes_on(above, ranks, several, says):
    assert continuing.sentence(RANK, above, ranks, several) == says


def test_of_what_named_a_checkpoint_nothing_stays():
    words = (
        "x --resume_from a/step5 --resume_from_tag=global_step5 --resume_training_state --bf16 True".split()
    )
    assert continuing.resumed(words) == ["x", "--bf16", "True", "--resume", "auto"]
