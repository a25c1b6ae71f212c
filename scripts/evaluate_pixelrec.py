"""Judge a checkpoint of either head; under deepspeed or torchrun as well."""

from command import run

run(__file__, __name__)
