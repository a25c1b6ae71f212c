"""Two hosts on one machine: do they train as one, and does one notice that the other was cut off? As root:

python benchmarks/two_hosts.py [--heads two_tower,samples] [--ways torchrun,mpirun,hostfile]

Two network namespaces, joined by a virtual cable, are the hosts; on each, its own name is 127.0.1.1, as
Debian has it. Each head trains on one host and, started in each way, on two: every line of metrics.jsonl (all
but times and rates) and every weight must be equal to the bit. Then the cable is pulled in the middle of an
epoch: both hosts must end by themselves, each with one sentence that names the other, and --resume auto on
the one that is left must do the steps that are left. Exits with 1 where anything differs. Needs iproute2;
hostfile needs sshd and pdsh besides.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil  # noqa: E402

from benchmarks.kill_resume import (  # noqa: E402
    ROOT,
    command,
    differences,
    events,
    last_step,
    write_samples_of,
)
from pixelrec_train.commands.make_demo import all_text  # noqa: E402
from pixelrec_train.data.synthetic import write_demo  # noqa: E402
from pixelrec_train.model.tiny import write_causal_lm, write_towers  # noqa: E402

PORT = "29500"
OF_A_RUN = ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME")
PATIENCE = 400  # seconds for a run
HOSTS, ADDRESSES = ("host-a", "host-b"), ("10.77.0.1", "10.77.0.2")
SSHD = """Port 22
HostKey {etc}/ssh/host_key
AuthorizedKeysFile {etc}/ssh/key.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
"""
SSH = """Host *
    IdentityFile {etc}/ssh/key
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""


def why_not():
    """What keeps this machine from having two hosts, or None."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "two hosts need root and iproute2's ip"
    name = f"px{os.getpid()}"
    tried = ip("netns", "add", name, check=False)
    ip("netns", "del", name, check=False)
    return f"no network namespace: {tried.stderr.strip()}" if tried.returncode else None


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def remove(name):
    """A namespace, what runs in it, and its /etc."""
    for _ in range(50):
        found = ip("netns", "pids", name, check=False).stdout.split()
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        if not found:
            break
        time.sleep(0.1)
    ip("netns", "del", name, check=False)
    shutil.rmtree(etc_of(name), ignore_errors=True)


def remove_leftovers():
    """Of runs of this program that were killed: their names tell their process."""
    names = ip("netns", "list", check=False).stdout.split()
    for folder in ("/etc/netns", tempfile.gettempdir()):
        names += [path.name for path in Path(folder).glob("p*")]
    for name in names:
        found = re.fullmatch(r"px(\d+)[ab]?|pixelrec-hosts-(\d+)-.*", name)
        if not found or psutil.pid_exists(int(found[1] or found[2])):
            continue
        if found[1]:
            remove(name)
        else:
            shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


def etc_of(name):
    return Path("/etc/netns") / name


@contextlib.contextmanager
def ended_in_order():
    """While this lasts a signal ends this program as Ctrl-C does: what it has started and made goes."""

    def leave(number, frame):
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class TwoHosts:
    """While this lasts there are two."""

    def __enter__(self):
        remove_leftovers()
        self.names = [f"px{os.getpid()}{letter}" for letter in "ab"]
        self.started = []
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self):
        for name, own, other, address in zip(self.names, HOSTS, HOSTS[::-1], ADDRESSES[::-1], strict=True):
            ip("netns", "add", name)
            etc = etc_of(name)
            etc.mkdir(parents=True)  # ip lays it over /etc
            (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {own}\n{address} {other}\n")
        a, b = self.names
        ip("link", "add", "eth7", "netns", a, "type", "veth", "peer", "eth7", "netns", b)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth7")
            ip("-n", name, "link", "set", "eth7", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def __exit__(self, *error):
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):  # all it started are in its session
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in self.names:
            remove(name)

    def start(self, host, words, said, **environment):
        """A process on host 0 or 1, in a session of its own; said: a file."""
        own_name = ["unshare", "--uts", "sh", "-c", f'hostname {HOSTS[host]} && exec "$@"', "sh"]
        clean = {k: v for k, v in os.environ.items() if k not in OF_A_RUN}
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], *own_name, *map(str, words)], cwd=ROOT,
            env=clean | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"} | environment,
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def cut(self):
        """Pull the cable: no packet arrives any more, and nobody is told."""
        ip("-n", self.names[1], "link", "set", "eth7", "down")

    def serve_ssh(self, said):
        for host, name in enumerate(self.names):
            (ssh := etc_of(name) / "ssh").mkdir()
            if host:  # the same keys
                shutil.copytree(etc_of(self.names[0]) / "ssh", ssh, dirs_exist_ok=True)
            for key in () if host else ("host_key", "key"):
                make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh / key]
                subprocess.run(make, check=True)
            (ssh / "sshd_config").write_text(SSHD.format(etc="/etc"))
            (ssh / "ssh_config").write_text(SSH.format(etc="/etc"))
        Path("/run/sshd").mkdir(exist_ok=True)
        for host in (0, 1):
            self.start(host, ["/usr/sbin/sshd", "-D", "-e"], said)
        time.sleep(1)


def launch(hosts, way, script, folder):
    """Processes of a run, a rank on each host; script: it and its flags. They speak into folder/said-N."""
    said = [open(folder / f"said-{host}", "w") for host in (0, 1)]
    if way == "hostfile":
        (folder / "hosts").write_text("".join(f"{name} slots=1\n" for name in HOSTS))
        hosts.serve_ssh(said[1])
        runner = [sys.executable, "-m", "pixelrec_train.machine.hosts", "--hostfile", folder / "hosts"]
        runner += ["--master_addr", HOSTS[0], "--master_port", PORT]
        return [hosts.start(0, [*runner, *script], said[0])]
    processes = []
    for host in (0, 1):
        words, environment = [sys.executable, *script], {"MASTER_ADDR": HOSTS[0], "MASTER_PORT": PORT}
        if way == "torchrun":
            words[1:1] = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
            words[3:3] = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"{HOSTS[0]}:{PORT}", "--rdzv_id", "7"]
            environment = {}
        else:
            told = {"RANK": host, "SIZE": 2, "LOCAL_RANK": 0, "LOCAL_SIZE": 1}
            environment |= {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in told.items()}
        processes.append(hosts.start(host, words, said[host], **environment))
    return processes


def said_in(folder):
    return [(folder / f"said-{host}").read_text() for host in (0, 1)]


def inputs(folder, head):
    write_demo(folder / "demo.csv", folder / "texts.csv", users=60, seed=1)
    texts = list(all_text(folder / "texts.csv"))
    if head == "two_tower":
        write_towers(texts, folder / "towers", hidden_size=32, vocab_size=600)
    else:
        write_causal_lm(texts, folder / "llm", hidden_size=32, vocab_size=600, chat=True)
        write_samples_of(texts, folder)


def script_of(folder, run, head, ranks=2, more=()):
    """A script and its flags; the global batch is that of two ranks."""
    words = command(folder, run, SimpleNamespace(head=head, ranks=ranks, zero=2, more=[*more]))
    return words[words.index("--master_port") + 2 :]


def alone(script, ranks=2):
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "error", "--num_gpus", ranks]
    words = [*map(str, runner), *script]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process = subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True, **streams)
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):  # of all it started some may be left
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        sys.exit(f"the run on one host failed:\n{said[-3000:]}")


def compare(head, ways, folder):
    """Lines about what is different; of one run on one host and of one on two hosts in each way."""
    inputs(folder, head)
    alone(script_of(folder, folder / "one", head))
    found = []
    for way in ways:
        with TwoHosts() as hosts:
            started = time.monotonic()
            processes = launch(hosts, way, script_of(folder, folder / way, head), folder)
            statuses = [process.wait(PATIENCE) for process in processes]
        if any(statuses):
            found.append(f"{head}, {way}: status {statuses}: {' | '.join(said_in(folder))[-3000:]}")
            continue
        wrong = differences(folder / "one", folder / way)
        found += [f"{head}, {way}: {line}" for line in wrong]
        took = f"{time.monotonic() - started:.0f} s"
        print(f"{head}, {way}: {len(wrong)} differences to one host, {took}", flush=True)
    return found


def cut_off(folder, run, script, step=5):
    """(seconds until both hosts ended, their statuses, what they said) of a run whose cable is pulled."""
    with TwoHosts() as hosts:
        processes = launch(hosts, "mpirun", script, folder)
        begun = time.monotonic()
        while last_step(run) < step:
            if any(p.poll() is not None for p in processes) or time.monotonic() - begun > PATIENCE:
                raise RuntimeError(f"no step {step}: {' | '.join(said_in(folder))[-3000:]}")
            time.sleep(0.05)
        hosts.cut()
        cut = time.monotonic()
        statuses = [process.wait(PATIENCE) for process in processes]
        return time.monotonic() - cut, statuses, said_in(folder)


def pull_the_cable(folder):
    """Lines about what is wrong."""
    seconds, statuses, said = cut_off(folder, folder / "cut", script_of(folder, folder / "cut", "two_tower"))
    sentences = [[line for line in text.splitlines() if line.startswith("error:")] for text in said]
    print(f"cut off: both hosts ended after {seconds:.0f} s, status {statuses}", flush=True)
    for lines in sentences:
        print("  " + " | ".join(lines), flush=True)
    wrong = [] if all(statuses) else [f"cut off: status {statuses}"]
    for lines, other in zip(sentences, HOSTS[::-1], strict=True):
        if len(lines) != 1 or other not in lines[0]:
            wrong.append(f"cut off: one sentence that names {other} was expected, found {lines}")
    before = last_step(folder / "cut")
    alone(script_of(folder, folder / "cut", "two_tower", ranks=1), ranks=1)
    ours, theirs = (steps(folder / run) for run in ("one", "cut"))
    print(f"cut off after step {before}, resumed on one host: {len(theirs)} steps", flush=True)
    return wrong + [f"resumed: steps {theirs}"] * (ours != theirs)


def steps(run):
    return [event["step"] for event in events(run) if event["kind"] == "step"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--heads", default="two_tower,samples")
    parser.add_argument("--ways", default="torchrun,mpirun,hostfile")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    found = []
    for head in options.heads.split(","):
        with ended_in_order(), tempfile.TemporaryDirectory(prefix=f"pixelrec-hosts-{os.getpid()}-") as folder:
            found += compare(head, list(filter(None, options.ways.split(","))), Path(folder))
            if head == "two_tower":
                found += pull_the_cable(Path(folder))
    for line in found:
        print(line)
    print("DIFFERENT" if found else "two hosts train as one, to the bit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
