"""A language model judged as OpenOneRec's benchmark counts, beside the figures that every model here has.

A sample is a user with a history and all items that were taken next there (several where a split holds
several targets behind one history). Lists are the search's own, with items that the user has seen.

pass@k: any target is among the first k. position1_pass@k: the first target is. recall@k: share of the
targets that are. Of ids; with pid_ in front of items, where an id stands for its most popular item alone.

Source: OpenOneRec, benchmarks/, recommendation tasks, select_k "first_k", sid_to_pid "most_popular".
"""

import numpy as np

from pixelrec_train.evaluation.generation import Generated, Places, other_counts

THEIRS = "openonerec_"  # in front of these figures' names: recall@k is another one here
KINDS = ("pass", "position1_pass", "recall")
HEAD = "as OpenOneRec counts, %"


class Asked(Generated):
    """Generated of one HeldOut alone, whose users may each be asked in words of their own."""

    def __init__(self, search, trie, beams, held_out):
        """
        Args:
            search: as of Generated, but of b numbers of held-out users in place of their histories.
            beams: also the larger k of the figures, as those of OpenOneRec have it: it takes all beams.
        """
        super().__init__(search, trie, beams)
        self.held_out = held_out

    def find_users(self, held_out, users, left_out, k, wanted):
        target = held_out.target[users]
        found, leaves = self.found(users, left_out, target, k)
        return found._replace(known=(*found.known, *listed(self.trie, leaves, target)))

    def counts(self, known, order, topk):
        *ours, sid, pid = (np.concatenate(part)[order] for part in zip(*known, strict=True))
        labelled = self.held_out.target >= 0
        target, ks = self.held_out.target[labelled], sorted({1, self.beams})
        sample = samples_of(self.held_out)[labelled]
        return (
            other_counts(Places(*ours), topk)
            | passes(sample, self.trie.leaf_of[target], sid, ks, THEIRS)
            | passes(sample, target, pid, ks, f"{THEIRS}pid_")
        )


def listed(trie, leaves, target):
    """([b] place of each target's id in the list of ids, [b] place of the item in the items they stand for);
    absent is the number of ids of the catalogue.

    Args:
        leaves: [b, n] of the trie, best first, -1 where a list ran out; target: [b] items.
    """
    hit = (leaves == trie.leaf_of[target][:, None]) & (leaves >= 0)
    sid = np.where(hit.any(1), hit.argmax(1), trie.num_leaves)
    most_popular = trie.leaf_items[trie.leaf_ptr[np.maximum(trie.leaf_of[target], 0)]]
    return sid, np.where(most_popular == target, sid, trie.num_leaves)


def samples_of(held_out):
    """[E] number of each target's sample: targets of one user behind the same history share one."""
    numbers = {}
    keys = ((int(user), held_out.history(e).tobytes()) for e, user in enumerate(held_out.users))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def passes(sample, key, place, ks, prefix=""):
    """{"pass@1": mean over samples, …}, prefix in front; a target that comes twice in a sample counts once.

    Args:
        sample, key, place: [E] which sample a target belongs to, what it is, where it stands, 0 = first; the
            first of a sample is its first target.
    """
    samples, first, sample = np.unique(sample, return_index=True, return_inverse=True)
    _, distinct = np.unique(np.stack([sample, key], axis=1), axis=0, return_index=True)
    targets, values = np.bincount(sample[distinct]), {}
    for k in ks:
        hit = place < k
        found = np.bincount(sample[distinct], hit[distinct], len(samples))
        values[f"{prefix}pass@{k}"] = float((found > 0).mean())
        values[f"{prefix}position1_pass@{k}"] = float(hit[first].mean())
        values[f"{prefix}recall@{k}"] = float((found / targets).mean())
    return values


def passes_text(rows, beams):
    """{name: figures} -> Markdown in percent, of ids and of items, with a line that says what they are.

    Where every sample has one target the three kinds are one, and it stands there once.
    """
    columns = [f"{level}{{}}@{k}" for level in ("", "pid_") for k in sorted({1, beams})]
    kinds = KINDS if any(len(set(three(row, c))) > 1 for row in rows.values() for c in columns) else KINDS[:1]
    names = [column.format(kind) for column in columns for kind in kinds]
    width = max(map(len, [*rows, HEAD]))
    lines = [
        "| " + " | ".join([HEAD.ljust(width), *names]) + " |",
        "|" + "|".join(["-" * (width + 2), *("-" * (len(name) + 1) + ":" for name in names)]) + "|",
    ]
    for row, figures in rows.items():
        cells = [f"{100 * figures[THEIRS + name]:.2f}".rjust(len(name)) for name in names]
        lines.append("| " + " | ".join([row.ljust(width), *cells]) + " |")
    same = "" if len(kinds) > 1 else "; with one target each, position1_pass@k and recall@k are pass@k"
    return "\n".join([*lines, "", f"{HEAD}: seen items stay in lists; pid_ is of items, not of ids{same}."])


def three(figures, column):
    return [figures[THEIRS + column.format(kind)] for kind in KINDS]
