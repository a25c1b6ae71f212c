"""The pins of requirements.txt, and whether this Python has packages that will do.

python -m pixelrec_train.machine.pins ends with status 0 where it has, and prints what differs from the pins
("numpy 2.1.0, tested with 2.2.6"); scripts/prepare_python.sh asks it. --tests: what tests need as well.
"""

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import NamedTuple

from pixelrec_train.files import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
FOR_TESTS = "# tests"  # packages behind this line of requirements.txt are not needed to train
LINE = re.compile(r"([\w-]+)==(\S+)(?:\s*# >=(\S+) <(\S+))?")


class Pin(NamedTuple):
    """name==version  # >=floor <ceiling; without this range that version alone will do."""

    name: str
    version: str
    floor: str | None
    ceiling: str | None
    needed: bool  # to train

    def found(self):
        """{name: version} of what is installed: faiss-gpu counts as faiss-cpu, 2.13.0+cpu is 2.13.0."""
        names = (self.name, "faiss-gpu") if self.name == "faiss-cpu" else (self.name,)
        return {name: version.split("+")[0] for name in names if (version := installed(name))}

    def will_do(self):
        return any(map(self.takes, self.found().values()))

    def takes(self, version):
        in_range = self.floor and order(self.floor) <= order(version) < order(self.ceiling)
        return version == self.version or bool(in_range)

    def differs(self):
        """What is there in place of the pinned version, in words; "" where that very version is."""
        there = self.found()
        if self.version in there.values():
            return ""
        found = " and ".join(f"{name} {version}" for name, version in there.items())
        return f"{found}, tested with {self.version}" if there else f"no {self.name}"


def pins(requirements=REQUIREMENTS):
    before, _, behind = Path(requirements).read_text(encoding="utf-8").partition(FOR_TESTS)
    return [
        Pin(*match.groups(), needed)
        for text, needed in ((before, True), (behind, False))
        for match in map(LINE.match, text.splitlines())
        if match
    ]


def order(version):
    """Numbers up to the first letter: 2.13.0rc1 -> (2, 13, 0)."""
    return tuple(int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number)


def differences(some):
    return "; ".join(filter(None, (pin.differs() for pin in some)))


def installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(arguments):
    asked = [pin for pin in pins() if pin.needed or "--tests" in arguments]
    wrong = [pin for pin in asked if not pin.will_do()]
    print(differences(wrong or asked))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
