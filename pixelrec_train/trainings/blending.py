"""A blend from its parts: weights chosen on validation, or as a blend.json has them."""

from dataclasses import fields
from typing import NamedTuple

from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.data.inputs import Inputs, read_interactions, split_of
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.engine.resume import recorded
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blend import Blend, Hybrid, end_to_end
from pixelrec_train.evaluation.blend_weights import fit
from pixelrec_train.recommend.blend_file import BlendFile, blend_file, read_blend, write_blend
from pixelrec_train.recommend.checkpoints import Loaded, check_split_as_trained, data_files
from pixelrec_train.recommend.parts import (
    COLD,
    UNTRAINED,
    Parts,
    checkpoints_of,
    loader,
    named_parts,
    vectors_of,
)
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run.log import say

WHOLE = 10**9  # items of a window: all that a user took, so that a cold item is one nobody took in training
COLD_TARGETS = 30  # of validation; with fewer, nothing says what cold items are worth
HELD_OUT = {"split_data", "valid_data", "test_data", "split_protocol"}


class Blended(NamedTuple):
    recommender: Blend
    file: BlendFile
    named: list[str]  # parts that are no paths

    @property
    def note(self):
        """Its weights and what they were chosen by, in a sentence."""
        found = ", ".join(
            f"{name} {100 * self.file.validation[name]:.2f}" for name in ("recall@10", "ndcg@10")
        )
        how = "; the first retrieves, besides cold items" * self.file.hybrid
        return (
            f"{self.file.in_words()}{how}; weights by validation ndcg@10; each half of the users by the "
            f"weights of the other, %: {found}"
        )

    def vectors(self, retrieval):
        """The blend as one TwoTower, of the parts that weigh anything; None where one is no vector model."""
        weights = {name: weight for name, weight in self.file.parts.items() if weight}
        vectors = [vectors_of(self.recommender.parts[name], retrieval) for name in weights]
        if None in vectors:
            return None
        return end_to_end(vectors, list(weights.values()), self.file.keep_seen, retrieval)


def chosen_by_validation(names, parts, read, split, config, told, hybrid=False):
    """Blended. All ranks call it.

    Parts that know an item only by who took it put cold ones last, however good the others find them; so
    COLD is a part of its own, wherever validation can say its weight.

    Args:
        names: of its parts.
        parts: Parts.
        read: Interactions.
        config: RankingFlags with --split.
        told: {flag: value} of DataFlags and TextFlags, for blend.json.
        hybrid: whether the first part retrieves, see Hybrid.

    Raises:
        InputError: nobody is held out to validate.
    """
    if not (split.valid.target >= 0).any():
        raise InputError(f"{'+'.join(names)}: nobody is held out to validate, so no weights can be chosen.")
    say(f"blend: weights of {' + '.join(names)}, by validation ndcg@10")
    start = [1.0] * len(names)
    known = split.valid.target[split.valid.target >= 0]
    if (split.popularity[known] == 0).sum() >= COLD_TARGETS and COLD not in names:
        names, start = [*names, COLD], [*start, 0.0]
    found = fit(blend_of(names, start, parts, hybrid), split.valid, config)
    weights = dict(zip(names, found.weights, strict=True))
    validation = found.figures | {"users": found.users}
    file = BlendFile(weights, hybrid, config.keep_seen, validation, dict(told), read.fingerprint)
    # Judged on the users who have chosen its weights, a blend takes those that others have chosen.
    halves = found.halves if config.split == "valid" else None
    return Blended(blend_of(names, found.weights, parts, hybrid, halves), file, parts.named)


def blend_of(names, weights, parts, hybrid, halves=None):
    made = {name: parts[name] for name in names}
    for name, part in made.items():
        if part.reads_times:
            raise InputError(
                f"{'+'.join(names)}: {name} reads when items were taken, and a blend does not say."
            )
    if hybrid:
        return Hybrid(made, weights, halves, always=parts[COLD].items[:, 0] > 0)
    return Blend(made, weights, halves)


def as_written(file, parts, read, config):
    """Blended of a BlendFile; a line where its weights were chosen for something else than is judged."""
    seen = "left in" if file.keep_seen else "removed"
    for differs, what in (
        (file.keep_seen != config.keep_seen, f"with seen items {seen}"),
        (file.fingerprint != read.fingerprint, "on other rows"),
        (config.split == "valid", "on these very users"),
    ):
        if differs:
            say(f"blend: its weights were chosen {what}")
    weighing = {
        name: weight for n, (name, weight) in enumerate(file.parts.items()) if weight or file.hybrid > n
    }
    blend = blend_of(list(weighing), list(weighing.values()), parts, file.hybrid)
    return Blended(blend, file, parts.named)


def write(directory, blended, split):
    facts = {"split": split.origin, "commit": run_directory.commit()}
    write_blend(directory, blended.file, blended.named, **facts)


def load_blend(config):
    """(Loaded, Blended) of --checkpoint A+B, or of a blend.json. config: EvaluateConfig."""
    path = blend_file(config.checkpoint)
    file = path and read_blend(path, "--checkpoint")
    names = list(file.parts) if file else named_parts(config.checkpoint)
    names += named_parts(config.hybrid) if config.hybrid else []
    checkpoints = checkpoints_of(names, "--checkpoint", UNTRAINED)
    for checkpoint in checkpoints:
        check_split_as_trained(checkpoint, "--checkpoint", config)
    data, texts = (told(group, file, checkpoints, config) for group in (DataFlags, TextFlags))
    read = read_interactions(data)
    split = split_of(read, data, WHOLE)

    def words():
        if not texts.text_data:
            raise InputError(f"--checkpoint {config.checkpoint}: tfidf reads texts. Name --text_data.")
        from pixelrec_train.data.item_fields import read_fields  # brings pandas and pyarrow with it

        fields, _ = read_fields(read.item_ids, texts)
        return [" ".join(values or ()) for values in fields]

    files = data_files(data, text_data=texts.text_data)
    parts = Parts(read, split, words, loader(files, config.trust_remote_code, config, config.num_beams))
    if file:
        blended = as_written(file, parts, read, config)
    else:
        blended = chosen_by_validation(
            names, parts, read, split, config, vars(data) | vars(texts), bool(config.hybrid)
        )
    inputs = Inputs(read, split, ItemText.unread(read.num_items))
    return Loaded("hybrid" if blended.file.hybrid else "blend", inputs, blended.recommender), blended


def told(group, file, checkpoints, config):
    """Flags of a group: as the command has them, else as a blend.json or the first checkpoint has them."""
    own = {f.name: getattr(config, f.name) for f in fields(group) if hasattr(config, f.name)}
    own = {name: value for name, value in own.items() if value not in (None, ())}
    sources = [recorded(checkpoint, "--checkpoint")["config"] for checkpoint in checkpoints]
    sources = [file.data] if file else sources
    deciding = "interaction_data" if group is DataFlags else "text_data"
    found = next((source for source in sources if source.get(deciding)), {})
    if HELD_OUT & own.keys():
        found = {name: value for name, value in found.items() if name not in HELD_OUT}
    flags = {f.name: found[f.name] for f in fields(group) if f.name in found} | own
    if group is DataFlags and "interaction_data" not in flags:
        raise InputError(f"--checkpoint {config.checkpoint} has no data of its own. Name --interaction_data.")
    return group(**flags)
