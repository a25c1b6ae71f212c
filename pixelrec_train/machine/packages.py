"""Python and the packages of requirements.txt: there, in a version that will do, and not broken."""

import json
import platform
import signal
import sys
from pathlib import Path

from pixelrec_train.machine.finding import OK, PROBLEM, WARN, Finding
from pixelrec_train.machine.pins import differences, pins

# Where the name to import is another
MODULES = {"faiss-cpu": "faiss", "scikit-learn": "sklearn", "PyYAML": "yaml"}


def python():
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < (3, 10):  # noqa: UP036 (whoever runs this may have any)
        return Finding(PROBLEM, "python", found, "Python 3.10 or newer is needed")
    return Finding(OK, "python", found)


def versions(requirements):
    """Findings: what is missing, a line per package in a version not known to do; one when all is well."""
    if not Path(requirements).is_file():
        yield Finding(PROBLEM, "packages", f"{requirements} does not exist", "Is this the whole repository?")
        return
    wanted = pins(requirements)
    missing = [pin for pin in wanted if not pin.found()]
    some = ", for tests, benchmarks and single flags"
    for verdict, needed, words in ((PROBLEM, True, ""), (WARN, False, some)):
        if names := ", ".join(f"{pin.name}=={pin.version}" for pin in missing if pin.needed == needed):
            yield Finding(verdict, "packages", f"missing{words}: {names}", install(f"-r {requirements}"))
    other = [pin for pin in wanted if pin.found() and not pin.will_do()]
    for pin in other:
        yield Finding(WARN, "packages", pin.differs(), install(f"{pin.name}=={pin.version}"))
    if not (missing or other):
        compatible = differences(wanted)
        found = f"compatible: {compatible}" if compatible else "in their versions"
        yield Finding(OK, "packages", f"all {len(wanted)} of {Path(requirements).name}, {found}")


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
    return [MODULES.get(pin.name, pin.name) for pin in pins(requirements) if pin.needed and pin.found()]


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
