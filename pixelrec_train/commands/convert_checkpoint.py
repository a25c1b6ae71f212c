"""Write the language model of a checkpoint as a Hugging Face directory, in half precision."""

import os
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.files import possible_directory, replaceable_directory, write_json
from pixelrec_train.flags import DIRECTORY, MODEL, POSITIVE, Flags, check_paths, flag, one_of, parse_args
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched

RECORD = "conversion.json"


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Flags):
    """Convert the language model of a checkpoint to a directory that others load."""

    base_model_dir: str = flag(
        "the directory that training started from: config, tokenizer and chat template are taken from it",
        path=MODEL,
    )
    model_home: str = flag("the run directory", path=DIRECTORY)
    step: str = flag("which checkpoint: a number of steps, best, latest, or its own name")
    output_model_dir: str | None = flag("directory to write; None = converted/ in the checkpoint", None)
    dtype: str = flag("of the weights: bf16 or fp32", "bf16", one_of("bf16", "fp32"))
    max_shard_gb: float = flag("a weight file holds at most so many gigabytes (of 10^9 bytes)", 5.0, POSITIVE)
    overwrite: bool = flag("replace what an earlier conversion wrote there", False)
    trust_remote_code: bool = flag("whether Python code in base_model_dir may run", False)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(ConvertConfig, argv))
    config = fetched(config)
    from pixelrec_train.engine.finding import of_step
    from pixelrec_train.engine.manifest import CONVERTED, remove, verify
    from pixelrec_train.model.conversion import convert
    from pixelrec_train.run.checkpoints import MANIFEST
    from pixelrec_train.tasks.tokens import LLM

    checkpoint = of_step(config.model_home, config.step)
    if not (checkpoint / LLM).is_dir():
        raise InputError(f"{checkpoint} holds no {LLM}/: its model is no language model to convert.")
    output = Path(config.output_model_dir or checkpoint / CONVERTED)
    check_free(output, checkpoint, config)
    verify(checkpoint, to_resume=False)
    partial = output.with_name(f"{output.name}.partial")
    remove(partial)
    try:
        sizes = convert(
            config.base_model_dir, checkpoint / LLM, partial, config.dtype,
            1e9 * config.max_shard_gb, config.trust_remote_code,
        )  # fmt: skip
        made_of = {"base_model_dir": config.base_model_dir, "checkpoint": str(checkpoint)}
        write_json(partial / RECORD, made_of | {"dtype": config.dtype, "bytes": sizes})
        remove(output)
        os.replace(partial, output)
    except Exception:
        if (checkpoint / MANIFEST).is_file():
            raise
        raise InputError(
            f"{checkpoint} is gone: its run has dropped or replaced it meanwhile. Convert a newer one, or "
            f"raise --save_total_limit of the run."
        ) from None
    finally:
        remove(partial)
    files = f"{len(sizes)} weight files" if len(sizes) > 1 else "one weight file"
    print(f"made {output}: {sum(sizes.values()) / 1e9:.2f} GB in {config.dtype}, {files}, of {checkpoint}")


def check_free(output, checkpoint, config):
    """Raises InputError where the output would be an input, or something else than an earlier conversion."""
    possible_directory(output, "--output_model_dir")
    for name, path in (("--base_model_dir", Path(config.base_model_dir)), ("the checkpoint", checkpoint)):
        if path.resolve().is_relative_to(output.resolve()):
            raise InputError(f"--output_model_dir {output} would replace {name} {path}. Choose another.")
    if config.output_model_dir and output.resolve().is_relative_to(checkpoint.resolve()):
        raise InputError(
            f"--output_model_dir {output} lies in the checkpoint, which stays as it was written. Leave it "
            f"out, or choose a directory elsewhere."
        )
    replaceable_directory(
        output, "--output_model_dir", (RECORD,), "conversion", "a conversion", config.overwrite
    )
