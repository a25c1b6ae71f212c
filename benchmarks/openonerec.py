"""What OpenOneRec's own code makes of samples, beside what ours makes of them (benchmarks/vectors.py)."""

import itertools
import json
from collections import Counter

import numpy as np

from benchmarks.checks import Check, difference
from pixelrec_train.config.training import OptimisationFlags
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.samples.rows import row_counts, samples
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.data.tokens.packs import pack
from pixelrec_train.data.tokens.token_store import TokenStore
from pixelrec_train.engine.optim import share_of_rate
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer

RATE = 1e-12  # absolute; all else is equal or not
THEIR_MULTIPLE, THEIR_ROOM = 8, 64  # their packs are filled up to this multiple, and by so much more


class Case:
    """A directory of theirs, and what ours makes of its samples under any settings."""

    def __init__(self, directory, cache_dir):
        self.directory, self.cache_dir = directory, cache_dir
        self.sources = sources_of(str(directory / "file_list.json"), "file list")
        self.tokenizer_dir = directory / "tokenizer"
        self.tokenizer = load_tokenizer(self.tokenizer_dir)
        self.expected = self.json("expected_samples.json")
        self.range = self.expected.get("itemic_id_range")
        files = [file for source in self.sources for file in source.files]
        self.samples = [
            sample
            for file in files
            for group in range(len(row_counts(file)))
            for _, sample in samples(file, group)
        ]
        self.find_places()
        self.stores = {}

    def json(self, name):
        return json.loads((self.directory / name).read_text(encoding="utf-8"))

    def store(self, think, only_assistant):
        settings = dict(only_assistant_loss=only_assistant, add_think_pattern=think)
        if (think, only_assistant) not in self.stores:
            # Shards of a few rows, so that more than one is read.
            self.stores[think, only_assistant] = TokenStore.open_or_build(
                self.sources, self.tokenizer, self.tokenizer_dir, self.cache_dir, rows_per_shard=5, **settings
            )
        return self.stores[think, only_assistant]

    def find_places(self):
        """Give each expected sample its "place" among ours; a uuid may be that of several."""
        places, seen = {}, Counter()
        for place, sample in enumerate(self.samples):
            places.setdefault(getattr(sample, "uuid", None), []).append(place)
        for told in self.expected["samples"]:
            uuid = told["uuid"]
            if uuid not in places:
                raise InputError(f"expected_samples.json has uuid {uuid}, which none of the files has.")
            settings = uuid, told.get("add_think_pattern"), told.get("only_assistant_loss")
            told["place"] = places[uuid][min(seen[settings], len(places[uuid]) - 1)]
            seen[settings] += 1

    def is_itemic(self, ids):
        return (ids >= self.range[0]) & (ids <= self.range[1]) if self.range else np.zeros(len(ids), bool)


def all_checks(directory, cache_dir):
    case = Case(directory, cache_dir)
    yield from check_samples(case)
    yield from check_packs(case)
    yield from check_rates(case)


def check_samples(case):
    """Each sample by itself: text, tokens, labels, itemic tokens."""
    told = case.expected["samples"]
    places = {expected["place"] for expected in told}
    yield Check("samples without expected numbers", float(len(case.samples) - len(places)))
    for expected in told:
        think = expected.get("add_think_pattern", False)
        place = expected["place"]
        sample = case.samples[place]
        name = f"{expected.get('case', expected['uuid'])}{', think pattern' if think else ''}"[:68]
        text, _ = Renderer(case.tokenizer, add_think_pattern=think).text(sample)
        yield Check(f"{name}: text", difference(*([ord(c) for c in t] for t in (text, expected["text"]))))
        for only_assistant in (True, False):
            ids, is_label = case.store(think, only_assistant).tokens(place)
            if only_assistant:
                yield Check(f"{name}: tokens", difference(ids, expected["input_ids"]))
                if case.range:
                    yield Check(f"{name}: itemic", difference(case.is_itemic(ids), expected["itemic_mask"]))
            right = np.array(expected["label_mask_right"])
            if not expected.get("only_assistant_loss", only_assistant) and sample.messages:
                right = np.ones_like(right)  # the key as it is documented: all of a chat is learned
            which = "labels" if only_assistant else "labels, only_assistant_loss off"
            # Nothing predicts the first token of a text, whatever the numbers say of it.
            yield Check(f"{name}: {which}", difference(is_label[1:], right[1:]) + float(is_label[0]))


def check_packs(case):
    """Their packs, in their order, and the last one, which theirs never emit."""
    for number, expected in enumerate(case.json("expected_packs.json")):
        room, cut, theirs = expected["max_length"], expected["cut_to_pad"], expected["packs"]
        left_over = expected["left_over_never_emitted"]
        names = [name for packed in theirs for name in packed["cases"]]
        think, places = seen_samples(case, names + left_over, expected)
        packs = pack(case.store(think, True).lengths[places], room, "greedy", cut)
        ours = [packs.pieces(p) for p in range(len(packs))]
        kind = f"packs {number} ({'cut' if cut else 'uncut'}, {room} tokens)"
        # What theirs leaves over is one pack or none.
        yield Check(f"{kind}: number", abs(len(ours) - len(theirs) - bool(left_over)))
        for p, (packed, (pieces, lengths)) in enumerate(zip(theirs, ours, strict=False)):
            for name, error in pack_errors(case, think, places[pieces], lengths, packed, room):
                yield Check(f"{kind}, pack {p}: {name}", error)
        rest = [places[i] for pieces, _ in ours[len(theirs) :] for i in pieces]
        left = difference(names_of(case, think, rest), left_over)
        yield Check(f"{kind}: the samples theirs never emits are the last pack", left)
        counted = np.bincount(packs.sample, minlength=len(places))
        yield Check(f"{kind}: each sample once", float(np.abs(counted - 1).max(initial=0)))


def pack_errors(case, think, places, lengths, packed, room):
    """Yields (quantity, largest difference) of a pack; theirs is filled up, and ours here, too.

    Args:
        places, lengths: [n] of the samples that ours holds, and their tokens in the pack.
    """
    total = -(-room // THEIR_MULTIPLE) * THEIR_MULTIPLE + THEIR_ROOM
    parts = zip(map(case.store(think, True).tokens, places), lengths, strict=True)
    tokens = [(ids[:length], is_label[:length]) for (ids, is_label), length in parts]
    ids, is_label = map(np.concatenate, zip(*tokens, strict=True))
    yield "samples", difference(names_of(case, think, places), packed["cases"])
    filled = dict(
        input_ids=(ids, case.tokenizer.pad_token_id),
        position_ids=(np.concatenate([np.arange(length) for length in lengths]), 0),
        itemic_id_mask=(case.is_itemic(ids), 0),
        sample_idx=(np.repeat(np.arange(len(lengths)), lengths), -1),
    )
    for key, (values, fill) in filled.items():
        yield (
            key,
            difference(np.pad(values.astype(int), (0, total - len(ids)), constant_values=fill), packed[key]),
        )
    yield "cu_seqlens", difference([0, *np.cumsum(lengths), total], packed["cu_seqlens"])
    yield "labels", difference(is_label, right_labels(case, think, places, lengths))


def seen_samples(case, names, expected):
    """(whether the think pattern was added, [n] places of the samples in the order their loader saw them)."""
    found = {}
    for think in [expected["add_think_pattern"]] if "add_think_pattern" in expected else [False, True]:
        of_name = {}
        for told in case.expected["samples"]:
            if told.get("add_think_pattern", False) == think:
                of_name.setdefault(told.get("case", told["uuid"]), []).append(told)
        queues = {name: iter(told) for name, told in of_name.items()}  # a name may be that of several
        told = [next(queues.get(name, iter(())), None) for name in names]
        if None not in told:
            ids = list(itertools.chain.from_iterable(t["input_ids"] for t in told))
            theirs = [i for packed in expected["packs"][:1] for i in packed["input_ids"]]
            found[think] = sum(a == b for a, b in zip(ids, theirs, strict=False)), told
    if not found:
        raise InputError("expected_packs.json names cases that expected_samples.json does not have.")
    think = max(found, key=lambda think: found[think][0])
    return think, np.array([t["place"] for t in found[think][1]], np.int64)


def told_of(case, think, place):
    """What expected_samples.json says of a sample."""
    settings = place, think
    return next(
        t for t in case.expected["samples"] if (t["place"], t.get("add_think_pattern", False)) == settings
    )


def names_of(case, think, places):
    told = [told_of(case, think, place) for place in places]
    return [t.get("case", t["uuid"]) for t in told]


def right_labels(case, think, places, lengths):
    """Their right labels of the pieces of a pack, without each text's first."""
    parts = []
    for place, length in zip(places, lengths, strict=True):
        right = np.array(told_of(case, think, place)["label_mask_right"])[:length]
        right[:1] = 0
        parts.append(right)
    return np.concatenate(parts)


def check_rates(case):
    """The learning rate at every step, past the end of its fall, too."""
    for number, expected in enumerate(case.json("expected_learning_rate.json")):
        rates = expected["lr_at_step"]
        flags = OptimisationFlags(
            learning_rate=expected["learning_rate"], min_lr=expected["min_lr"],
            lr_scheduler_type=expected.get("lr_scheduler_type", "cosine"),
            warmup_steps=expected["num_warmup_steps"], decay_steps=expected["num_training_steps"],
        )  # fmt: skip
        share = share_of_rate(flags, len(rates))
        ours = [flags.learning_rate * share(step) for step in range(len(rates))]
        span = f"{flags.warmup_steps} of warm-up, {flags.decay_steps} in all"
        yield Check(f"learning rates {number}: {len(rates)} steps, {span}", difference(ours, rates), RATE)
