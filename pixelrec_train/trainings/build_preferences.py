"""Pairs of a better and a worse item from interactions: what was taken next, and what the model would say."""

import json
from collections import Counter

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.config.preferences import BEAMS, POPULAR
from pixelrec_train.config.rollouts import BEAM, RolloutFlags
from pixelrec_train.data.loader import Slot
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blocks import in_blocks
from pixelrec_train.files import made_whole, replaceable_directory, write_json
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.rl.rollouts import Policy
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say
from pixelrec_train.trainings.asking import asking
from pixelrec_train.trainings.in_run import AskedInRun
from pixelrec_train.trainings.prompting import prompts_of_training
from pixelrec_train.trainings.train_samples import trusted

PAIRS, HELD_OUT, FACTS = "pairs.jsonl", "held_out_pairs.jsonl", "facts.json"
TRIES = 8  # draws of a popular item for each that is wanted


def main(config):
    """config: BuildPreferencesConfig."""
    rendezvous.initialise(config.collective_timeout_minutes)
    build(config)
    rendezvous.finish()


def build(config):
    """All ranks call it; rank 0 writes."""
    replaceable_directory(
        config.output_dir, "--output_dir", (FACTS, PAIRS), "build", "preferences", config.overwrite
    )
    refuse_checkpoint(config.model_dir)
    trust = trusted(config)
    model = TokenModel.load(config.model_dir, "--model_dir", dtype="auto", trust=trust)
    asked = AskedInRun(
        model.to(distributed.device()).stand_still(), config.model_dir,
        asking(config, "valid"), trust,
    )  # fmt: skip
    told = prompts_of_training(config, asked)
    trie, split = asked.prepared.trie, asked.users.inputs.split
    others = Others(config, model, trie, split.popularity)
    say(f"{len(told.prompts):,} prompts, {trie.num_leaves:,} ids")

    def work(numbers):
        return pairs_of(numbers, told, others, config)

    found = in_blocks(len(told.prompts), config.eval_batch_size, work)
    if distributed.rank() == 0:
        write(config, told, [row for rows in found for row in rows], trie)
    distributed.barrier()


class Others:
    """Ids that are no target, of each kind."""

    def __init__(self, config, model, trie, popularity):
        self.trie, self.kinds, self.wanted = trie, config.rejected, config.pairs_per_prompt
        taken = np.zeros(trie.num_leaves)
        np.add.at(taken, trie.leaf_of[trie.leaf_items], popularity[trie.leaf_items])
        self.ends = np.cumsum(taken) / max(taken.sum(), 1)
        self.families = families(trie.ids())
        how = RolloutFlags(rollout=BEAM, num_generations=min(config.num_beams, trie.num_leaves))
        self.policy = Policy(model, trie, how, config.normalised_over, config.seed)

    def named(self, prompts):
        """[B, K] leaves that the model names, best first; none where nobody asks for them."""
        if BEAMS not in self.kinds:
            return np.zeros((len(prompts), 0), np.int64)
        return self.policy([p.token_ids for p in prompts], [p.key for p in prompts]).numpy()

    def of(self, target, history, named, rng):
        """[(leaf, its kind)], at most `wanted`, all different, none of them the target's or the history's.

        Args:
            target: a leaf; history: item numbers.
            named: [K] leaves of `named`.
        """
        out = {target, *self.trie.leaf_of[history].tolist()}
        queues, found = {kind: iter(self.queue(kind, target, named, rng)) for kind in self.kinds}, []
        while queues:
            for kind in list(queues):
                leaf = next((leaf for leaf in queues[kind] if leaf not in out), None)
                if leaf is None:
                    del queues[kind]
                    continue
                out.add(leaf)
                found.append((leaf, kind))
                if len(found) == self.wanted:
                    return found
        return found

    def queue(self, kind, target, named, rng):
        """Yields leaves of a kind, the target's own and repeated ones among them."""
        if kind == BEAMS:
            place = np.flatnonzero(named == target)
            yield from named[: place[0] if len(place) else None].tolist()
        elif kind == POPULAR:
            drawn = np.searchsorted(self.ends, rng.random(TRIES * self.wanted), side="right")
            yield from np.minimum(drawn, len(self.ends) - 1).tolist()
        else:  # those that share most of their codes with the target, then those that share fewer
            for family in reversed(self.families):
                first, stop = np.searchsorted(family, [family[target], family[target] + 1])
                yield from (first + rng.permutation(stop - first)).tolist()


def families(codes):
    """L - 1 of [leaves] numbers of the prefixes of 1, 2, … codes; codes: [leaves, L] in their order."""
    differ = np.logical_or.accumulate(codes[1:] != codes[:-1], axis=1)
    return [np.append(0, np.cumsum(differ[:, depth])) for depth in range(codes.shape[1] - 1)]


def pairs_of(numbers, told, others, config):
    """[(number of a user's sequence, row of a file)] of these prompts."""
    prompts, trie, rows = told.prompts, others.trie, []
    asked = [prompts[Slot(0, int(number), int(number))] for number in numbers]
    for number, prompt, named in zip(numbers.tolist(), asked, others.named(asked), strict=True):
        stretch, rng = prompts.stretch(number), np.random.default_rng([config.seed, number])
        target = int(trie.leaf_of[prompt.target])
        for leaf, kind in others.of(target, prompt.history, named, rng):
            item = int(trie.leaf_items[trie.leaf_ptr[leaf]])
            pair = {"chosen": told.ids[prompt.target], "rejected": told.ids[item], "source": kind}
            rows.append((prompts.sequence(number), {"prompt": told.words(stretch)} | pair))
    return rows


def write(config, told, rows, trie):
    """Both files, whole or not at all, and a line on what is in them."""
    sequences = np.unique([sequence for sequence, _ in rows])
    count = round(config.valid_share * len(sequences))
    held_out = set(np.random.default_rng(config.seed).permutation(sequences)[:count].tolist())
    parts = {PAIRS: [], HELD_OUT: []}
    for sequence, row in rows:
        parts[HELD_OUT if sequence in held_out else PAIRS].append(row)
    kinds = Counter(row["source"] for _, row in rows)
    facts = {
        "prompts": len(told.prompts), "pairs": len(parts[PAIRS]), "held_out_pairs": len(parts[HELD_OUT]),
        "rejected": dict(kinds), "model_dir": config.model_dir, "seed": config.seed,
    }  # fmt: skip

    def make(directory):
        for name, own in parts.items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own)
            (directory / name).write_text(text, encoding="utf-8")
        write_json(directory / FACTS, facts)

    if not parts[PAIRS]:
        raise InputError("there is no pair: no prompt has another id than its target's and its history's.")
    made_whole(config.output_dir, make)
    sources = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
    say(f"{config.output_dir}: {len(parts[PAIRS]):,} pairs, {len(parts[HELD_OUT]):,} held out ({sources})")
