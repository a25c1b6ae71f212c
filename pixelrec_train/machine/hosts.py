"""DeepSpeed's launcher for the machines of a hostfile, with what it takes for granted looked at first.

python -m pixelrec_train.machine.hosts --hostfile hosts [--master_addr host-a] [--master_port 29500] X.py …

It reaches other machines through pdsh and ssh, whose shells read every word again: what is empty or has
a $ in it would be lost. It hands on few variables of the environment: those of HANDED_ON go along. Another
number of threads, say, gives other sums than on one machine.
"""

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.launchers import through_pdsh

HANDED_ON = ("OMP_NUM_THREADS", "DS_ACCELERATOR", "GLOO_SOCKET_IFNAME", "HF_HOME", "HF_HUB_OFFLINE")
OF_DEEPSPEED = "DS_ENV_FILE", ".deepspeed_env"  # a file of lines NAME=value; it is looked for in ~ and here
LINE = re.compile(r"(?P<name>[^\s#]+)\s+slots=(?P<slots>\d+)(\s+max_slots=\d+)?\s*(#.*)?")
PATIENCE = 15  # seconds for a host to answer
UNREACHED = 255  # ssh's own status; any other is that of the command
ELSEWHERE = "Or start torchrun on each machine: docs/many_machines.md."


@speak_plainly
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--hostfile", required=True)
    parser.add_argument("--master_addr")
    parser.add_argument("--master_port")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="a script and its flags")
    options = parser.parse_args()
    hosts = read_hostfile(options.hostfile)
    check_hosts(options.hostfile, list(hosts))
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "critical"]
    for name in ("hostfile", "master_addr", "master_port"):
        if value := getattr(options, name):
            runner += [f"--{name}", value]
    words = options.words if len(hosts) == 1 else map(through_pdsh, options.words)
    sys.stdout.flush()
    os.execve(sys.executable, [*runner, *words], os.environ | {OF_DEEPSPEED[0]: handed_on()})


def read_hostfile(file):
    """{host: ranks on it}

    Raises:
        InputError: it is missing, has a line DeepSpeed would not read, a host twice or none.
    """
    if not Path(file).is_file():
        raise InputError(f"HOSTFILE {file} does not exist (looked from {Path.cwd()}).")
    hosts = {}
    for line in Path(file).read_text().splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        found = LINE.fullmatch(line)
        if not found or int(found["slots"]) == 0:
            raise InputError(
                f"HOSTFILE {file} has a line '{line}'; each must be 'name slots=8', with the ranks of that "
                f"machine."
            )
        if found["name"] in hosts:
            raise InputError(f"HOSTFILE {file} names {found['name']} twice; a machine has one line.")
        hosts[found["name"]] = int(found["slots"])
    if not hosts:
        raise InputError(f"HOSTFILE {file} names no machine; a line of it is 'name slots=8'.")
    return hosts


def check_hosts(file, hosts):
    """Raises InputError where ssh or pdsh is missing, a host does not let us in or lacks what is to run."""
    for tool, package in [("ssh", "openssh-client")] + [("pdsh", "pdsh")] * (len(hosts) > 1):
        if not shutil.which(tool):
            raise InputError(
                f"HOSTFILE {file} names {len(hosts)} machines, and there is no {tool} here, with which "
                f"DeepSpeed reaches them. Install it (apt install {package}). {ELSEWHERE}"
            )
    with ThreadPoolExecutor(32) as pool:
        problems = list(filter(None, pool.map(why_not, hosts)))
    if problems:
        more = f" So it is with {len(problems) - 1} more." if len(problems) > 1 else ""
        raise InputError(problems[0] + more)


def why_not(host):
    """A sentence about what keeps ranks from starting there, or None."""
    here = shlex.quote(os.getcwd())
    asked = f"cd {here} && test -x {shlex.quote(sys.executable)}"
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={PATIENCE}"]
    try:
        answer = subprocess.run(
            ["ssh", *options, host, asked], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=2 * PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        silent = f"{host} has not answered ssh for {2 * PATIENCE} s"
        return f"{silent}. Wake it, or take it out of the hostfile. {ELSEWHERE}"
    if answer.returncode == UNREACHED:
        said = [*filter(None, answer.stderr.splitlines()), "ssh ended without a word"][0]
        return (
            f"{host} does not let this machine in: {said.strip().rstrip('.')}. DeepSpeed needs 'ssh {host}' "
            f"to work without a question. {ELSEWHERE}"
        )
    if answer.returncode:
        return (
            f"{host} has no {sys.executable}, or no directory {os.getcwd()}, where ranks are to run. Every "
            f"machine needs both at the same place, or on a file system they share."
        )
    return None


def handed_on():
    """A file for DeepSpeed, in memory: HANDED_ON as they are here, then what people have written there.

    By PIXELREC_LAUNCHER scripts/launcher.sh finds the ranks of this machine, which are no children of ours.
    """
    lines = [f"{name}={os.environ[name]}" for name in HANDED_ON if os.environ.get(name)]
    lines.append(f"PIXELREC_LAUNCHER={platform.node()}:{os.getpid()}")
    name = os.environ.get(*OF_DEEPSPEED)
    for folder in (Path.home(), Path.cwd()):
        if (file := folder / name).is_file():
            lines += [line for line in file.read_text().splitlines() if "=" in line]
    number = os.memfd_create("deepspeed_env", flags=0)  # flags: it stays open in the launcher
    os.write(number, "".join(f"{line}\n" for line in lines).encode())
    return f"/proc/self/fd/{number}"


if __name__ == "__main__":
    main()
