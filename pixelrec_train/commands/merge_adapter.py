"""Add an adapter (LoRA, in peft's format) to the language model that it was trained upon."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.files import made_whole, replaceable_directory, write_json
from pixelrec_train.flags import DIRECTORY, MODEL, Flags, check_paths, flag, parse_args
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched

RECORD = "merging.json"


@dataclass(frozen=True, kw_only=True)
class MergeConfig(Flags):
    """Merge an adapter into its base: a directory that every command here takes, and plain transformers."""

    adapter_dir: str = flag("directory with adapter_config.json and its weights", path=DIRECTORY)
    base_model_dir: str | None = flag(
        "the model that it was trained upon; None = the one that adapter_config.json names",
        None,
        path=MODEL,
    )
    output_model_dir: str = flag("directory to write")
    overwrite: bool = flag("replace what an earlier merging wrote there", False)
    trust_remote_code: bool = flag("whether Python code in base_model_dir may run", False)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(MergeConfig, argv))
    config = fetched(config)
    output = Path(config.output_model_dir)
    check_free(output, config)
    from pixelrec_train.model.merging import merge

    def make(directory):
        base, layers = merge(config.adapter_dir, config.base_model_dir, directory, config.trust_remote_code)
        write_json(directory / RECORD, {"base_model_dir": str(base), "adapter_dir": config.adapter_dir})
        return base, layers

    base, layers = made_whole(output, make)
    print(f"made {output}: {base} with an adapter in {layers} layers of it")


def check_free(output, config):
    """Raises InputError where the output would be an input, or something else than an earlier merging."""
    for name in ("adapter_dir", "base_model_dir"):
        path = getattr(config, name)
        if path and Path(path).resolve().is_relative_to(output.resolve()):
            raise InputError(f"--output_model_dir {output} would replace --{name} {path}. Choose another.")
    replaceable_directory(
        output, "--output_model_dir", (RECORD,), "merge_adapter", "a merged model", config.overwrite
    )
