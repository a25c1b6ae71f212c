"""A blend from its parts: weights chosen on validation, or as a blend.json has them."""

from typing import NamedTuple

from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blend import Blend, Hybrid, end_to_end
from pixelrec_train.evaluation.blend_weights import fit
from pixelrec_train.recommend.blend_file import BlendFile, write_blend
from pixelrec_train.recommend.parts import COLD, vectors_of
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run.log import say

COLD_TARGETS = 30  # of validation; with fewer, nothing says what cold items are worth


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
        if self.file.hybrid:
            return None  # what a search has found is no inner product
        weights = {name: weight for name, weight in self.file.parts.items() if weight}
        parts, keep_seen = self.recommender.parts, self.file.keep_seen
        vectors = [vectors_of(parts[name], retrieval, keep_seen) for name in weights]
        if None in vectors:
            return None
        return end_to_end(vectors, list(weights.values()), keep_seen, retrieval)


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
    starts = [[1.0] * len(names)]
    known = split.valid.target[split.valid.target >= 0]
    if (split.popularity[known] == 0).sum() >= COLD_TARGETS and COLD not in names:
        # From several places: a part that buries cold items and COLD are of use together, and alone of none.
        names, starts = [*names, COLD], [[*starts[0], weight] for weight in (0.0, 0.3, 1.0)]
    found = fit(blend_of(names, starts[0], parts, hybrid), split.valid, config, starts)
    weights = dict(zip(names, found.weights, strict=True))
    validation = found.figures | {"users": found.users}
    file = BlendFile(weights, hybrid, config.keep_seen, validation, dict(told), read.fingerprint)
    # Judged on the users who have chosen its weights, a blend takes those that others have chosen.
    halves = found.halves if config.split == "valid" else None
    return Blended(blend_of(names, found.weights, parts, hybrid, halves), file, parts.named)


def blend_of(names, weights, parts, hybrid, halves=None):
    made = {name: parts[name] for name in names}
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
