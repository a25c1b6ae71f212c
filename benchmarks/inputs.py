"""Realistic inputs: item texts as long, items as popular and histories as long as on amazon_scientific.

Only those numbers are shipped, as quantiles; the data are not ours to give. To take them anew, from a folder
with dataset/ and information/amazon_scientific.csv (Amazon Reviews 2018, Industrial and Scientific, 5-core):

    python benchmarks/inputs.py DIR
"""

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from pixelrec_train.batch import PackedTexts  # noqa: E402
from pixelrec_train.config import TokenFlags  # noqa: E402
from pixelrec_train.data.item_fields import read_texts  # noqa: E402
from pixelrec_train.data.item_text import ItemText, tokenise  # noqa: E402
from pixelrec_train.data.tables import open_table  # noqa: E402

FILE = Path(__file__).with_name("amazon_scientific.json")
SHARES = np.linspace(0, 1, 201)
VOCAB_SIZE = 16_000
LONGEST_TEXT = 256  # tokens, without [ITEM]
DISTINCT_WORDS = 50_000
WORD_DECAY = 0.5  # gives as many tokens per word as the real texts have, 1.4


@dataclass(frozen=True)
class Inputs:
    """Quantiles at SHARES of the items or users; what is drawn is the same in every run."""

    item_tokens: list[float]  # of title, tag and description; BPE of VOCAB_SIZE trained on them, not clipped
    item_words: list[float]  # of the same texts
    item_interactions: list[float]  # popularity
    user_items: list[float]  # lengths of whole histories

    def draw(self, name, count):
        """[count] values of this distribution, evenly spread over it, in random order."""
        values = np.interp((np.arange(count) + 0.5) / count, SHARES, getattr(self, name))
        return np.random.default_rng(0).permutation(values)

    def item_text(self, items):
        """Random tokens with real lengths, clipped, ended by [ITEM]'s placeholder: as training reads them."""
        lengths = np.minimum(self.draw("item_tokens", items).round().astype(np.int64), LONGEST_TEXT) + 1
        ends = np.cumsum(lengths)
        tokens = np.random.default_rng(1).integers(0, VOCAB_SIZE, ends[-1]).astype(np.int32)
        tokens[ends - 1] = 0
        return ItemText(tokens, np.concatenate([[0], ends]), 0, 0, "drawn")

    def packed_texts(self, items) -> PackedTexts:
        return self.item_text(items).pack(np.arange(items))

    def texts(self, items):
        """Texts with real numbers of words; the words are made up, and frequent as words are."""
        rng = np.random.default_rng(2)
        words = made_up_words(rng)
        lengths = self.draw("item_words", items).round().astype(int)
        chances = np.cumsum(np.arange(1, len(words) + 1) ** -WORD_DECAY)
        drawn = words[np.searchsorted(chances, rng.random(lengths.sum()) * chances[-1])]
        return [" ".join(text) for text in np.split(drawn, np.cumsum(lengths)[:-1])]

    def histories(self, users, items):
        """One array of distinct item numbers per user, popular items more often."""
        rng = np.random.default_rng(3)
        chances = np.cumsum(self.draw("item_interactions", items))
        lengths = self.draw("user_items", users).round().astype(int)
        drawn = np.searchsorted(chances, rng.random(lengths.sum()) * chances[-1])
        return [without_repeats(history) for history in np.split(drawn, np.cumsum(lengths)[:-1])]


def made_up_words(rng):
    """[DISTINCT_WORDS] words of one to three syllables."""
    syllables = np.array(
        [c + v + e for c in "bcdfghklmnprstvw" for v in "aeiou" for e in ("", "n", "r", "s")]
    )
    counts = rng.integers(1, 4, DISTINCT_WORDS)
    pieces = np.split(rng.choice(syllables, counts.sum()), np.cumsum(counts)[:-1])
    return np.array(["".join(word) for word in pieces], dtype=object)


def without_repeats(history):
    return history[np.sort(np.unique(history, return_index=True)[1])]


def shipped():
    return Inputs(**json.loads(FILE.read_text()))


def measured(directory):
    """The same from the data themselves; trains the tokenizer on their texts."""
    # Imported here because every child process of a benchmark imports this file.
    from pixelrec_train.commands.make_demo import all_text
    from pixelrec_train.model.tiny import train_tokenizer

    information = Path(directory) / "information/amazon_scientific.csv"
    interactions = open_table(Path(directory) / "dataset/amazon_scientific.csv").rows(["item_id", "user_id"])
    popularity, lengths = (Counter(column) for column in zip(*interactions, strict=True))
    item_ids = [item_id for (item_id,) in open_table(information).rows(["item_id"])]
    flags = TokenFlags(text_data=str(information), text_keys=("title", "tag", "description"))
    texts, _ = read_texts(item_ids, flags, prompt="")
    tokenizer = train_tokenizer(all_text(information), VOCAB_SIZE)
    values = Inputs(
        item_tokens=np.diff(tokenise(tokenizer, texts, sys.maxsize, item_emb_token_n=0)[1]),
        item_words=[len(text.split()) for text in texts],
        item_interactions=list(popularity.values()),
        user_items=list(lengths.values()),
    )
    return Inputs(**{k: np.quantile(v, SHARES).round(1).tolist() for k, v in asdict(values).items()})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lines = (f'"{name}": {json.dumps(values)}' for name, values in asdict(measured(sys.argv[1])).items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
