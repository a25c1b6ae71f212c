"""Make what a first run needs and a bare machine lacks: a synthetic dataset and tiny models."""

import re
from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_file, possible_directory, possible_file
from pixelrec_train.flags import SEED, Flags, Rule, at_least, flag, one_of, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Flags):
    """Make a synthetic dataset (--interaction_data), two tiny towers (--towers_dir), a tiny LM (--lm_dir)."""

    text_data: str = flag("item CSV; written with --interaction_data, else read to train the tokenizer")
    interaction_data: str | None = flag("interaction CSV to write; None = make no dataset", None)
    towers_dir: str | None = flag("directory for item_llm and user_llm; None = make no towers", None)
    texts_dir: str | None = flag(
        "directory for texts and chats about the items, for scripts/train_text.py; None = make none", None
    )
    lm_dir: str | None = flag("directory for a causal LM with its head; None = make none", None)
    chat: bool = flag(
        "the LM's tokenizer has Qwen3's marks of turns and thoughts, and a chat template", False
    )
    samples: str | None = flag(
        "samples whose words the LM's tokenizer learns, too: a directory of scripts/build_samples.py", None
    )
    chat_template: str = flag(
        "with --samples: the template around them, whose words it learns as well",
        "chatml",
        one_of("chatml", "minionerec"),
    )
    users: int = flag("users of the synthetic dataset", 2000, at_least(1))
    hidden_size: int = flag("width of the towers and the LM", 64, at_least(1))
    layers: int = flag("layers of each", 2, at_least(1))
    vocab_size: int = flag(
        "entries of their tokenizer, at most",
        4096,
        Rule("must be at least 257: all bytes and an end", lambda size: size >= 257),
    )
    seed: int = flag("of dataset and initial weights", 42, SEED)


@speak_plainly
def main(argv=None):
    config = parse_args(DemoConfig, argv)
    for name, given in (("chat True", config.chat), (f"samples {config.samples}", config.samples)):
        if given and not config.lm_dir:
            raise InputError(
                f"--{name} is about the LM of --lm_dir, which is not there. Add --lm_dir, or leave it out."
            )
    for name in ("towers_dir", "lm_dir", "texts_dir"):
        if getattr(config, name):
            possible_directory(getattr(config, name), f"--{name}")
    if config.interaction_data:
        possible_file(config.interaction_data, "--interaction_data")
        possible_file(config.text_data, "--text_data")
        from pixelrec_train.data.synthetic import write_demo

        write_demo(config.interaction_data, config.text_data, config.users, config.seed)
        print(f"made {config.interaction_data} and {config.text_data}: synthetic, {config.users:,} users")
    if config.texts_dir:
        from pixelrec_train.data.synthetic_texts import write_texts

        documents, chats = write_texts(existing_file(config.text_data, "--text_data"), config.texts_dir)
        print(f"made {config.texts_dir}: {documents:,} documents and {chats:,} chats, and some held out")
    if not (config.towers_dir or config.lm_dir):
        return
    from pixelrec_train.model.tiny import write_causal_lm, write_towers

    made, shape = [], (config.hidden_size, config.layers, config.vocab_size, config.seed)
    texts = all_text(existing_file(config.text_data, "--text_data"))
    if config.towers_dir:
        made += write_towers(texts, config.towers_dir, *shape)
    if config.lm_dir:
        if config.samples:
            from pixelrec_train.model.chat_template import CHAT_TEMPLATES

            said = words_of(config.samples)
            texts += said + [CHAT_TEMPLATES[config.chat_template]] * len(said)
        made.append(write_causal_lm(texts, config.lm_dir, *shape, chat=config.chat))
    names = " and ".join(map(str, made))
    print(f"made {names}: tiny Qwen3, random weights, tokenizer from {config.text_data}")


def all_text(path):
    """Every text field of an item CSV, for the tokenizer; ids are no text."""
    from pixelrec_train.data.tables import open_table

    table = open_table(path)
    columns = [c for c in table.names if c != "item_id"]
    rows = list(table.rows(columns))
    return [f"{c}: {row[i]}" for i, c in enumerate(columns) for row in rows if row[i]]


def words_of(samples_given):
    """The texts of samples without what stands in <…>: that becomes words of its own."""
    from pixelrec_train.data.samples.files import sources_of
    from pixelrec_train.data.samples.rows import Problem, row_counts, samples

    texts = []
    for source in sources_of(samples_given, "--samples"):
        for file in source.files:
            for group in range(len(row_counts(file))):
                for _, sample in samples(file, group):
                    if not isinstance(sample, Problem):
                        said = sample.segments or [message["content"] for message in sample.messages]
                        texts += [re.sub("<[^<>]*>", "", text) for text in said]
    return texts
