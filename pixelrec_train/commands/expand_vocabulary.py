"""Give a causal LM a word for every code of the semantic ids."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.files import made_whole, possible_directory, replaceable_directory
from pixelrec_train.flags import DISTINCT, MODEL, SEED, Flags, Rule, flag, one_of, parse_args
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched
from pixelrec_train.semantic_id.codecs import CODECS, LETTERS

META_FILE = "itemic_meta.json"
MOST = len(LETTERS)
CHAT_TEMPLATES = ("chatml", "minionerec")


@dataclass(frozen=True, kw_only=True)
class ExpandConfig(Flags):
    """Write a copy of a causal LM whose vocabulary has itemic tokens, and itemic_meta.json beside it."""

    hf_model_dir: str = flag(
        "Hugging Face directory of a causal LM, or ORG/NAME[@revision] in the hub: Qwen/Qwen3-0.6B",
        path=MODEL,
    )
    output_model_dir: str = flag("directory to write")
    semantic_ids: str | None = flag("file of semantic ids whose levels and codebook sizes are taken", None)
    itemic_layer_n: int | None = flag(
        "levels; None = those of --semantic_ids",
        None,
        Rule(f"must be 1 to {MOST}", lambda levels: 1 <= levels <= MOST),
    )
    vocab_size_per_layer: tuple[int, ...] = flag(
        "codes per level: one number, or one for each level; none = those of --semantic_ids",
        (),
        Rule(f"must name at most {MOST} levels", lambda sizes: len(sizes) <= MOST),
        Rule("must be 1 to a million", lambda sizes: all(1 <= size <= 10**6 for size in sizes)),
    )
    codec: str = flag(f"spelling of the tokens: {', '.join(CODECS)}", "onerec", one_of(*CODECS))
    init: str = flag(
        "new rows: mean_cov = drawn like the old ones (mean and covariance); mean = their mean",
        "mean_cov",
        Rule("must be one of mean_cov, mean", lambda init: init in ("mean_cov", "mean")),
    )
    extra_tokens: tuple[str, ...] = flag(
        'further new words, such as "<|rec|>" of semantic_ids_llm', (), DISTINCT
    )
    chat_template: str | None = flag(
        f"how the model is spoken to: {', '.join(CHAT_TEMPLATES)}; None = as hf_model_dir says",
        None,
        one_of(*CHAT_TEMPLATES),
    )
    seed: int = flag("of the new rows", 42, SEED)
    overwrite: bool = flag("replace what an earlier expansion wrote to output_model_dir", False)
    trust_remote_code: bool = flag("whether Python code in hf_model_dir may run", False)

    def __post_init__(self):
        super().__post_init__()
        named, levels = len(self.vocab_size_per_layer), self.itemic_layer_n
        enough = named > 1 or (named and levels)
        if not (enough or self.semantic_ids):
            raise InputError(
                "how many tokens? Give --itemic_layer_n and --vocab_size_per_layer, or --semantic_ids."
            )

    def codebook_sizes(self):
        """[L], from the flags or the file.

        Raises:
            InputError: the two contradict.
        """
        sizes, levels = self.vocab_size_per_layer, self.itemic_layer_n
        if levels and len(sizes) not in (0, 1, levels):
            raise InputError(
                f"--vocab_size_per_layer names {len(sizes)} levels, --itemic_layer_n says {levels}."
            )
        if self.semantic_ids is None:
            return sizes * levels if len(sizes) == 1 else sizes
        from pixelrec_train.semantic_id.codes import SemanticIds

        found = SemanticIds.load(self.semantic_ids).codebook_sizes
        asked = sizes * len(found) if len(sizes) == 1 else sizes
        if (levels or len(found)) != len(found) or (asked or found) != found:
            raise InputError(
                f"--semantic_ids {self.semantic_ids} has codebooks of {', '.join(map(str, found))}; "
                f"--itemic_layer_n and --vocab_size_per_layer say otherwise. Leave them out."
            )
        return found


@speak_plainly
def main(argv=None):
    config = parse_args(ExpandConfig, argv)
    config = fetched(config)
    check_free(config)
    from pixelrec_train.model.expansion import expand

    sizes = config.codebook_sizes()
    output = Path(config.output_model_dir)

    def make(directory):
        return expand(
            config.hf_model_dir, directory, config.codec, sizes, config.init, config.seed,
            config.trust_remote_code, config.chat_template, config.extra_tokens,
        )  # fmt: skip

    made = made_whole(output, make)
    tokens = made.tokenizer_length - made.first_new_id
    ranges = ", ".join(f"{first}-{last}" for first, last in made.level_ranges)
    print(
        f"made {output}: {tokens:,} new tokens ({config.codec}), {made.rows:,} rows of {config.hf_model_dir}"
    )
    print(
        f"levels {ranges}; begin {made.begin_id}, end {made.end_id}; from {made.tokenizer_length} on no token"
    )


def check_free(config):
    """Raises InputError where the output would be the input, or something else than an earlier expansion."""
    output = possible_directory(config.output_model_dir, "--output_model_dir")
    if output.resolve() == Path(config.hf_model_dir).resolve():
        raise InputError("--output_model_dir must not be --hf_model_dir: the base model stays as it is.")
    if Path(config.hf_model_dir).resolve().is_relative_to(output.resolve()) and output.is_dir():
        raise InputError(
            f"--hf_model_dir {config.hf_model_dir} lies in --output_model_dir {output}, which is replaced. "
            f"Choose another."
        )
    replaceable_directory(
        output, "--output_model_dir", (META_FILE,), "expansion", "an expanded model", config.overwrite
    )
