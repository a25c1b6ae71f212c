"""A tiny language model with itemic tokens and samples of two sources for it, for tests."""

import json

import numpy as np

from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.writing import dataset_config, write_samples
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.vocabulary import ItemicVocabulary

WORDS = "a tale of two cities and one more the best of times was it".split()


def write_small_samples(folder, count=60):
    """base/ (a plain causal LM), llm/ (with itemic tokens), samples/ with Parquet files and dataset.json."""
    base = write_causal_lm([" ".join(WORDS)] * 3, folder / "base", hidden_size=32, chat=True)
    expand(base, folder / "llm", "onerec", (4, 6), "mean_cov", 0)
    (folder / "samples").mkdir()
    rng = np.random.default_rng(0)
    write_samples(folder / "samples", ((sample(rng, n), {}) for n in range(count)), rows_per_file=40)
    settings = dataset_config(128, True, folder / "llm", ItemicVocabulary.load(folder / "llm"))
    (folder / "samples/dataset.json").write_text(json.dumps(settings | {"num_workers": 0}))


def sample(rng, n):
    """A document of items, or a chat, with a thought every other time."""
    pairs = rng.integers((4, 6), size=(rng.integers(2, 6), 2))
    items = "".join(f"<|sid_begin|><s_a_{a}><s_b_{b}><|sid_end|>" for a, b in pairs)
    if n % 3 == 0:
        return Sample(f"v{n}", "video_rec", None, (items,))
    thought = f"<think>\n{' '.join(rng.choice(WORDS, 3))}\n</think>\n" if n % 2 else ""
    asked = " ".join(rng.choice(WORDS, rng.integers(1, 9)))
    messages = ("user", asked), ("assistant", thought + items)
    return Sample(f"g{n}", "general", tuple({"role": r, "content": c} for r, c in messages), None)
