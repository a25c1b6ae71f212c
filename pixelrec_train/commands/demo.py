"""Make what a first run needs and a bare machine lacks: a synthetic dataset and two tiny towers."""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.data.synthetic import write_demo
from pixelrec_train.data.tables import read_header, read_rows
from pixelrec_train.ending import speak_plainly
from pixelrec_train.flags import existing_file, flag, parse_args, possible_directory, possible_file, require
from pixelrec_train.model.tiny import write_towers


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Make a synthetic dataset (--interaction_data, --text_data) and/or two tiny towers (--towers_dir)."""

    text_data: str = flag(
        "item CSV; written with --interaction_data, else read to train the towers' tokenizer"
    )
    interaction_data: str | None = flag("interaction CSV to write; None = make no dataset", None)
    towers_dir: str | None = flag("directory for item_llm and user_llm; None = make no towers", None)
    users: int = flag("users of the synthetic dataset", 2000)
    hidden_size: int = flag("width of the towers", 64)
    layers: int = flag("layers of each tower", 2)
    vocab_size: int = flag("entries of the towers' tokenizer, at most", 4096)
    seed: int = flag("of dataset and initial weights", 42)

    def __post_init__(self):
        for name in ("users", "hidden_size", "layers"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1", getattr(self, name))
        require(
            self.vocab_size >= 257, "--vocab_size must be at least 257: all bytes and an end", self.vocab_size
        )
        require(0 <= self.seed < 2**63, "--seed must be in [0, 2**63)", self.seed)


@speak_plainly
def main(argv=None):
    config = parse_args(DemoConfig, argv)
    if config.towers_dir:
        possible_directory(config.towers_dir, "--towers_dir")
    if config.interaction_data:
        possible_file(config.interaction_data, "--interaction_data")
        possible_file(config.text_data, "--text_data")
        write_demo(config.interaction_data, config.text_data, config.users, config.seed)
        print(f"made {config.interaction_data} and {config.text_data}: synthetic, {config.users:,} users")
    if config.towers_dir:
        texts = all_text(existing_file(config.text_data, "--text_data"))
        towers = write_towers(
            texts, config.towers_dir, config.hidden_size, config.layers, config.vocab_size, config.seed
        )
        print(
            f"made {' and '.join(map(str, towers))}: tiny Qwen3, random weights, tokenizer from "
            f"{config.text_data}"
        )


def all_text(path):
    """Every text field of an item CSV, for the tokenizer; ids are no text."""
    columns = [c for c in read_header(Path(path)) if c != "item_id"]
    rows = list(read_rows(path, columns))
    return [f"{c}: {row[i]}" for i, c in enumerate(columns) for row in rows if row[i]]
