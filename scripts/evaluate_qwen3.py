"""Judge language models with itemic tokens on held-out users; under deepspeed or torchrun as well."""

from command import run

run(__file__, __name__)
