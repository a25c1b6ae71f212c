"""Between two epochs on thoughts that know the answer: which of them the model could have used.

Source: github.com/wangshy31/OneRec-Think, whose second epoch trains on such samples; its search admits ids
that no item has, and this one does not.
"""

import time
from pathlib import Path

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.samples.rewriting import (
    DATASET,
    FACTS,
    read_directory,
    read_facts,
    write_anew,
)
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blocks import in_blocks
from pixelrec_train.files import made_whole, replaceable_directory, write_json
from pixelrec_train.model.thoughts import Sampling
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.vocabulary import check_codes
from pixelrec_train.recommend.generator import search_of
from pixelrec_train.recommend.questions import THINK, Speaker
from pixelrec_train.recommend.thinking import Thinking
from pixelrec_train.recommend.thought_questions import Items, read_questions
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say
from pixelrec_train.semantic_id.codes import SemanticIds

PATIENCE = 30.0  # seconds between two lines on how far it is
SETTINGS = (
    "model_dir", "semantic_ids", "thoughts", "num_beams", "temperature", "top_p", "top_k", "thought_tokens",
    "normalised_over", "seed",
)  # fmt: skip


def main(config):
    """config: KeepThoughtsConfig."""
    rendezvous.initialise(config.collective_timeout_minutes)
    keep(config)
    rendezvous.finish()


def keep(config):
    """All ranks call it; rank 0 writes."""
    check_free(config)
    files, facts, trust = files_of(config), read_facts(config.samples), "item" in config.trust_remote_code
    refuse_checkpoint(config.model_dir)
    speaker = Speaker(config.model_dir, (THINK,), add_think_pattern=True, trust=trust, way_out=None)
    items = Items.of(ids_of(config, speaker), speaker.codec.name)
    questions, left = read_questions(files, items, speaker)
    if not questions:
        raise InputError(
            f"--samples {config.samples} holds no thought in front of an item's id, so there is nothing to "
            f"ask. Build them with scripts/build_samples.py --task reasoned_prediction."
        )
    model = TokenModel.load(config.model_dir, "--model_dir", dtype="auto", trust=trust)
    check_positions(model, speaker, items.trie, questions, config)
    say(f"{len(questions):,} samples with a thought, {len(items.catalogue.number_of_item):,} items")
    found_by, told = ask(config, speaker, model.to(distributed.device()).stand_still(), items.trie, questions)
    if distributed.rank() == 0:
        write(config, files, facts, questions, found_by, left, told)
    distributed.barrier()


def check_free(config):
    """Raises InputError where the output directory holds something that is not an earlier one of samples."""
    replaceable_directory(
        config.output_dir, "--output_dir", (FACTS, DATASET), "build", "samples", config.overwrite
    )
    output = Path(config.output_dir).resolve()
    if output.is_relative_to(Path(config.samples).resolve()):
        raise InputError(f"--output_dir {config.output_dir} lies in --samples. Choose another.")
    for name in ("samples", "model_dir", "semantic_ids", "interaction_data", "cache_dir"):
        read = getattr(config, name)
        if read and Path(read).resolve().is_relative_to(output):
            raise InputError(
                f"--{name} {read} lies in --output_dir {config.output_dir}, which is replaced. Choose "
                f"another."
            )


def files_of(config):
    """[Path] of the samples. Raises InputError where training would not tell thoughts from empty ones."""
    dataset, files = read_directory(config.samples)
    if not dataset.add_think_pattern:
        raise InputError(
            f"{dataset.path} does not set add_think_pattern, so questions would not say whether a thought "
            f"follows. Build the samples with --add_think_pattern True."
        )
    return files


def ids_of(config, speaker):
    """SemanticIds of the items that may be named. Raises InputError where the vocabulary is for others."""
    found = SemanticIds.load(config.semantic_ids)
    check_codes(speaker.vocabulary, config.model_dir, found, config.semantic_ids)
    if not config.interaction_data:
        return found
    item_ids = list(read_interactions(config).item_ids)
    return SemanticIds(item_ids, found.of(item_ids), found.codebook_sizes, found.facts)


def check_positions(model, speaker, trie, questions, config):
    """Raises InputError where the longest prompt, a thought and an id are more than the LLM can read."""
    longest = questions[-1]
    needed = len(longest.prompt) + config.thought_tokens + max(map(len, speaker.behind)) + trie.levels
    if model.longest_text and needed > model.longest_text:
        raise InputError(
            f"sample {longest.uuid} with a thought needs {needed:,} tokens, but the LLM reads "
            f"{model.longest_text:,}. Lower --thought_tokens, or build the samples with a shorter --history."
        )


def ask(config, speaker, model, trie, questions):
    """(found_by, told): which thought led to the sample's own id, the first being 0, -1 where none did; and
    Thinking.facts of each. The same on every rank, for any number of ranks.

    Each thought is drawn for those alone whose earlier ones led elsewhere: of the others all is known.
    """
    found_by, told = np.full(len(questions), -1), []
    how = Sampling(config.temperature, config.top_k, config.top_p)
    for n in range(config.thoughts):
        open_ones = np.flatnonzero(found_by < 0)
        if not len(open_ones):
            break
        name = f"thought {n + 1} of {config.thoughts}"
        thinking = Thinking(speaker, how, config.thought_tokens, config.seed + n)
        search = search_of(model, trie, config.normalised_over, thinking)

        def work(numbers, open_ones=open_ones, search=search):
            asked = [questions[e] for e in open_ones[numbers]]
            prompts = [torch.from_numpy(question.prompt.astype(np.int64)) for question in asked]
            leaves, _ = search(prompts, config.num_beams)
            pairs = zip(asked, leaves.tolist(), strict=True)
            return np.array([not question.leaves.isdisjoint(row) for question, row in pairs], bool)

        telling = Telling(name, len(open_ones))
        hit = np.concatenate(in_blocks(len(open_ones), config.eval_batch_size, work, telling))
        found_by[open_ones[hit]] = n
        told.append(thinking.facts()["thoughts"])
        say(f"{name}: {hit.sum():,} of {len(open_ones):,} lead to the item")
    return found_by, told


class Telling:
    """Says how far a thought is, twice a minute; see in_blocks."""

    def __init__(self, what, of):
        self.what, self.of, self.done = what, of, 0
        self.begun = self.said = time.monotonic()

    def __call__(self, own, samples):
        self.done, now = self.done + samples, time.monotonic()
        if now - self.said >= PATIENCE and self.done < self.of:
            self.said, rate = now, self.done / (now - self.begun)
            say(f"{self.what}: {self.done:,} of {self.of:,} samples, {rate:.1f} samples/s")


def write(config, files, facts, questions, found_by, left, told):
    """The directory, whole or not at all."""
    answers = {
        question.key: question.without for question, n in zip(questions, found_by, strict=True) if n < 0
    }
    kept = len(questions) - len(answers)
    found = {
        "kept": kept, "emptied": len(answers), "left_as_they_were": left,
        "kept_by_thought": np.bincount(found_by[found_by >= 0], minlength=config.thoughts).tolist(),
        "told": told,
    } | {name: getattr(config, name) for name in SETTINGS}  # fmt: skip

    def make(directory):
        write_anew(config.samples, files, directory, answers)
        write_json(directory / FACTS, facts | {"thoughts": found})

    made_whole(config.output_dir, make)
    share = f"{kept:,} of {len(questions):,} ({kept / len(questions):.1%})"
    print(f"thoughts kept: {share}; {len(answers):,} emptied")
    for why, count in left.items():
        print(f"left as they were: {count:,} ({why})")
    print(f"made {config.output_dir}: {len(files):,} files, {DATASET} and {FACTS}")
