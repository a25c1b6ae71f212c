"""Import libraries and ask torch what it sees; each answer is a line of JSON, written as soon as it is known.

Run by the doctor: python -m pixelrec_train.machine.probe torch numpy …
"""

import importlib
import json
import os
import shutil
import sys

from pixelrec_train.errors import InputError, first_line


def main():
    for name in sys.argv[1:]:
        say("importing", name)  # if the process ends here, it was this one
        try:
            importlib.import_module(name)
        except Exception as error:
            say("broken", {name: f"{type(error).__name__}: {first_line(error)}"})
    say("importing", None)
    for key, question in (("accelerator", accelerator), ("compiler", compiler), ("port", port)):
        try:
            say(key, question())
        except Exception as error:
            say("unknown", {key: first_line(error)})


def say(key, value):
    print(json.dumps({key: value}), flush=True)


def accelerator():
    import torch

    from pixelrec_train import distributed
    from pixelrec_train.run import resources

    facts = {"torch": torch.__version__, "built_for": torch.version.cuda or torch.version.hip}
    facts |= {"cores": resources.cores(), "used": distributed.uses_gpu()}
    if not torch.cuda.is_available():
        return facts | {"gpus": []}
    gpus = []
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        free, total = torch.cuda.mem_get_info(i)
        gpus.append({"name": gpu.name, "total": total, "free": free, "capability": [gpu.major, gpu.minor]})
    return facts | {"gpus": gpus, "bf16": torch.cuda.is_bf16_supported(including_emulation=False)}


def compiler():
    from pixelrec_train.machine.compiler import check_compiler

    try:
        check_compiler()
    except InputError as error:
        return {"absent": str(error)}
    return {"found": shutil.which(os.environ.get("CXX") or "g++") or shutil.which("gcc") or "there"}


def port():
    from pixelrec_train.run.resources import free_port

    importlib.import_module("pixelrec_train.distributed")  # as ranks do: without torch none needs a port
    return free_port()


if __name__ == "__main__":
    main()
