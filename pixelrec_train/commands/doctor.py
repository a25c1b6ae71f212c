"""Is this machine ready to train? One line per thing a run needs; what is missing is said, never a traceback.

Nothing but Python itself is imported here: a library may be missing or broken, and that is what is asked.
"""

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.config import CacheFlags
from pixelrec_train.files import ROOT
from pixelrec_train.flags import flag, parse_args
from pixelrec_train.machine import hardware, launch, packages
from pixelrec_train.machine.finding import PROBLEM, WARN
from pixelrec_train.run.exit_status import speak_plainly

PROBE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(CacheFlags):
    """Is this machine ready? A line per item: ok, warn (it trains, but read on) or PROBLEM (it would not).

    Exit status 1 with a PROBLEM, else 0. Takes some 10 seconds and leaves nothing behind.
    """

    requirements: str = flag("packages a run needs, with their versions", str(ROOT / "requirements.txt"))
    output_dir: str = flag("where runs are going to be written", "results/pixelrec")
    logging_dir: str = flag("where logs are going to be written", "logs/pixelrec")
    launch_timeout: float = flag("seconds the launcher gets to start its ranks", 180.0)


@speak_plainly
def main(argv=None):
    config = parse_args(DoctorConfig, argv)
    verdicts = []
    for finding in examine(config):
        print(finding, flush=True)
        verdicts.append(finding.verdict)
    problems, warnings = verdicts.count(PROBLEM), verdicts.count(WARN)
    counts = (f"{n} {word}{'s' * (n != 1)}" for n, word in ((problems, "problem"), (warnings, "warning")))
    print(f"\n{'not ready' if problems else 'ready to train'}: {', '.join(counts)}")
    sys.exit(1 if problems else 0)


def examine(config):
    """Findings, each as soon as it is known."""
    yield packages.python()
    yield from packages.versions(Path(config.requirements))
    found = ask_libraries(packages.modules(Path(config.requirements)))
    yield from packages.imports(found)
    gpus = len(found.get("accelerator", {}).get("gpus", ()))
    yield hardware.accelerator(found.get("accelerator"))
    yield launch.launcher(gpus, found.get("port"), config.launch_timeout)
    yield hardware.threads(gpus)
    yield hardware.compiler(found.get("compiler"))
    yield from hardware.disk((config.output_dir, config.logging_dir, config.cache_dir))
    yield hardware.memory()
    yield hardware.shared_memory()
    yield hardware.open_files()


def ask_libraries(modules):
    """What machine/probe.py finds in a process of its own: a broken library may take its process with it."""
    command = [sys.executable, "-m", "pixelrec_train.machine.probe", *modules]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=launch.environment()
    ) as probe:
        patience = threading.Timer(PROBE_SECONDS, probe.kill)  # a driver that hangs must not hang the doctor
        patience.start()
        found = packages.read_answers(probe.stdout)
        patience.cancel()
    return found | {"status": probe.returncode}
