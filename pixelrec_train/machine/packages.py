"""Python and the packages of requirements.txt: there, in the right version, and not broken."""

import importlib.metadata
import json
import platform
import signal
import sys
from pathlib import Path

from pixelrec_train.machine.finding import OK, PROBLEM, WARN, Finding

MODULES = {"faiss-cpu": "faiss", "scikit-learn": "sklearn"}  # where the name to import is another
FOR_TESTS = "# tests"  # packages behind this line of requirements.txt are not needed to train


def python():
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < (3, 10):  # noqa: UP036 (whoever runs this may have any)
        return Finding(PROBLEM, "python", found, "Python 3.10 or newer is needed")
    return Finding(OK, "python", found)


def pins(requirements):
    """[(name, version, needed to train)] of a requirements.txt with exact pins."""
    found, needed = [], True
    for line in Path(requirements).read_text(encoding="utf-8").splitlines():
        needed = needed and not line.startswith(FOR_TESTS)
        name, _, version = line.split("#")[0].strip().partition("==")
        if name:
            found.append((name, version, needed))
    return found


def versions(requirements):
    """Findings: what is missing, and a line per package in another version; one in all when all is well.

    The rules are those of scripts/prepare_python.sh: faiss-gpu counts as faiss-cpu, 2.13.0+cpu is 2.13.0.
    """
    if not Path(requirements).is_file():
        yield Finding(PROBLEM, "packages", f"{requirements} does not exist", "Is this the whole repository?")
        return
    wanted, missing, other = pins(requirements), {True: [], False: []}, []
    for name, version, needed in wanted:
        names = (name, "faiss-gpu") if name == "faiss-cpu" else (name,)
        there = {n: v for n in names if (v := installed(n))}
        if not there:
            missing[needed].append(f"{name}=={version}")
        elif version not in [v.split("+")[0] for v in there.values()]:
            found = f"{' and '.join(f'{n} {v}' for n, v in there.items())}, tested with {version}"
            other.append(Finding(WARN, "packages", found, install(f"{name}=={version}")))
    if missing[True]:
        names = ", ".join(missing[True])
        yield Finding(PROBLEM, "packages", f"missing: {names}", install(f"-r {requirements}"))
    if missing[False]:
        found = f"missing, for tests and benchmarks only: {', '.join(missing[False])}"
        yield Finding(WARN, "packages", found, install(f"-r {requirements}"))
    yield from other
    if not (missing[True] or missing[False] or other):
        yield Finding(OK, "packages", f"all {len(wanted)} of {Path(requirements).name}, in their versions")


def installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def install(what):
    """The environment that the scripts made, where there is one; else what to type."""
    made = Path(".venv/bin/python")
    if made.exists() and Path(sys.prefix).resolve() != Path(".venv").resolve():
        return "The scripts made an environment: source .venv/bin/activate"
    return f"Do: {sys.executable} -m pip install {what}"


def modules(requirements):
    """Names to import of the packages that a run needs and that are there, torch first."""
    if not Path(requirements).is_file():
        return []
    needed = [name for name, _, needed in pins(requirements) if needed]
    there = [n for n in needed if installed(n) or (n == "faiss-cpu" and installed("faiss-gpu"))]
    return [MODULES.get(name, name) for name in there]


def read_answers(lines):
    """The JSON lines of machine/probe as one dict; "broken" and "unknown" collect what failed, and why."""
    found = {"importing": None, "broken": {}, "unknown": {}}
    for line in lines:
        if line.startswith("{"):  # a library may print something as well
            answer = json.loads(line)
            for key, value in answer.items():
                found[key] = found[key] | value if key in ("broken", "unknown") else value
    return found


def imports(found):
    """A Finding per reason why packages that are there cannot be imported."""
    reasons = {}
    for name, why in found["broken"].items():
        reasons.setdefault(why, []).append(name)  # where torch is broken, so is what stands on it
    if found["importing"]:
        reasons[f"the process ends there ({ending(found['status'])})"] = [found["importing"]]
    for why, names in reasons.items():
        package = {module: package for package, module in MODULES.items()}.get(names[0], names[0])
        advice = install(f"--force-reinstall {package}")
        yield Finding(PROBLEM, "packages", f"{', '.join(names)} cannot be imported: {why}", advice)


def ending(status):
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
