"""Whether torch.compile would find a compiler."""

import os
import shlex
import shutil

from pixelrec_train import distributed
from pixelrec_train.errors import InputError


def check_compiler():
    """Raises InputError where torch.compile would find no compiler, before it does in the first step.

    On a CPU it writes C++, on a GPU Triton compiles a piece of C.
    """
    variable, usual = ("CC", "gcc") if distributed.uses_gpu() else ("CXX", "g++")
    compiler = shlex.split(os.environ.get(variable) or usual)[0]
    if shutil.which(compiler) is None:
        raise InputError(
            f"--compile needs a compiler, and {compiler} is not there. Install it or set {variable}."
        )
