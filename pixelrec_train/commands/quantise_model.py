"""A language model with its matrices in 8 or 4 bits, to serve: by bitsandbytes, read by transformers."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.files import made_whole, replaceable_directory, write_json
from pixelrec_train.flags import DIRECTORY, Flags, check_paths, flag, one_of, parse_args
from pixelrec_train.run.exit_status import speak_plainly

RECORD = "quantising.json"


@dataclass(frozen=True, kw_only=True)
class QuantiseConfig(Flags):
    """Write a language model in 8 or 4 bits; plain transformers loads it where bitsandbytes is installed."""

    model_dir: str = flag("Hugging Face directory of a causal LM", path=DIRECTORY)
    output_model_dir: str = flag("directory to write")
    bits: int = flag("8 (LLM.int8) or 4 (NF4, double quantisation)", 8, one_of(8, 4))
    overwrite: bool = flag("replace what an earlier call wrote there", False)
    trust_remote_code: bool = flag("whether Python code in model_dir may run", False)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(QuantiseConfig, argv))
    output = Path(config.output_model_dir)
    if Path(config.model_dir).resolve().is_relative_to(output.resolve()):
        raise InputError(f"--output_model_dir {output} would replace --model_dir. Choose another.")
    replaceable_directory(
        output, "--output_model_dir", (RECORD,), "quantise_model", "a model", config.overwrite
    )
    from pixelrec_train.model.quantising import quantised

    def make(directory):
        found = quantised(config.model_dir, directory, config.bits, config.trust_remote_code)
        write_json(directory / RECORD, {"model_dir": config.model_dir, "bits": config.bits, **found})
        return found

    found = made_whole(output, make)
    print(
        f"made {output}: {config.bits} bits, {found['bytes'] / 1e6:,.1f} MB of "
        f"{found['bytes_before'] / 1e6:,.1f}; of {found['tokens']} tokens the likeliest next word is alike "
        f"at {found['same_word']:.1%}; logits are off by {found['off']:.1%} of the largest, at most"
    )
