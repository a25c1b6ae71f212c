"""What is held out, and whether samples to train on hold it.

A row that names its user (metadata: user_id) is held against what is held out of that user. Rows without a
user are held against all: a held-out item right behind its user's last ones, in an order that no training row
has. So are the pairs of OneRec-Think's type E, whose graph is to be made of training rows. Its type D, and
whatever tells an id's text, is made of ids alone and not of what anybody took: it has no user and no order,
and nothing of it can be held out.

What a user had taken in training as well, or what training rows hold in the same order, may be either; it is
not counted.
"""

import itertools
from dataclasses import dataclass

import numpy as np

USERS = "a held-out item of its user stands in it"
SUCCESSION = "a held-out item follows its user's history in it"
PAIR = "the pair it asks for occurs among held-out rows alone"
NEVER_NEXT = "the item it asks for is taken next among held-out rows alone"
UNKNOWN = "users that --interaction_data does not have, who are held against nobody's items"

FORWARD, BACKWARD = "type_e_copurchase_forward", "type_e_copurchase_backward"
BY_CATEGORY = "type_e_category_transition"
OF_IDS = "type_d_"
# Views whose samples list what a user took in its order, without gaps.
IN_ORDER = ("type_c_", "sid_history_to_sid", "video_rec", "sid_prediction", "reasoned_prediction")


@dataclass(frozen=True)
class HeldOutRows:
    """Items by their number in the catalogue, where there is one; ids of the tables without."""

    items: dict  # user id -> {item id: "valid" or "test"}, of those not taken in training
    numbers: dict  # user id -> {number of an id: …}, likewise
    pairs: frozenset  # (last item of the history, target) that no training row has in succession
    triples: frozenset  # the same with the last two of the history
    targets: frozenset  # that no training row has behind another item
    summary: str

    @staticmethod
    def of(split, users, item_ids, catalogue):
        """
        Args:
            split: Split.
            users: ids of the users that it numbers.
            item_ids: of the items that it numbers.
            catalogue: Catalogue, or None: ids in texts are not looked at.
        """
        taken, parts = split.taken, {"valid": split.valid, "test": split.test}
        items = by_user(taken, parts, users, np.arange(len(item_ids)))
        items = {u: {item_ids[i]: part for i, part in own.items()} for u, own in items.items()}
        known = sum(map(len, items.values()))
        summary = f"held out: {split.origin}; {known:,} pairs of user and item that are in no training row"
        if catalogue is None:
            nothing = frozenset()
            return HeldOutRows(items, dict.fromkeys(users, {}), nothing, nothing, nothing, summary)
        number = np.array([catalogue.number_of_item[item_id] for item_id in item_ids], np.int64)
        size = len(catalogue.numbers)
        numbers = dict.fromkeys(users, {}) | by_user(taken, parts, users, number)
        flat, inner = in_training(taken, number)
        held = [last_of(part, number) for part in parts.values()]
        two, three = (np.concatenate([rows[rows[:, -n] >= 0, -n:] for rows in held]) for n in (2, 3))
        pairs = only_in(two, windows(flat, inner, 2), size)
        triples = only_in(three, windows(flat, inner, 3), size)
        next_items = windows(flat, inner, 2)[:, 1]
        targets = frozenset(np.setdiff1d(two[:, 1], next_items).tolist())
        return HeldOutRows(items, numbers, pairs, triples, targets, summary)

    def check(self, source, facts, asked, answered, found, place):
        """Add to Found what a sample holds of it.

        Args:
            facts: its metadata.
            asked, answered: numbers of the ids in its question and in its answer, in order; of a document all
                are in the answer.
        """
        user, targets = facts.get("user_id"), facts.get("target_item_ids")
        if user is not None and (user := str(user)) in self.numbers:
            own = self.items.get(user, {})
            named = [i for i in map(str, targets if isinstance(targets, list) else ()) if i in own]
            parts = [own[item] for item in named]
            told = self.numbers[user]
            parts = parts or [told[n] for n in (*asked, *answered) if n in told]
            if parts:
                item = f", item {named[0]!r}" if named else ""
                found.wrong.add(USERS, f"{place} (user {user!r}{item}, of {parts[0]})")
            return
        if user is not None:
            found.remarks.add(source, UNKNOWN, f"{place} ({user!r})")
        if source.startswith(OF_IDS) or not self.pairs:
            return
        if source.startswith((FORWARD, BACKWARD)):
            ends = (asked, answered) if source.startswith(FORWARD) else (answered, asked)
            if not self.pairs.isdisjoint(itertools.product(*ends)):
                found.wrong.add(PAIR, f"{place} ({source})")
        elif source.startswith(BY_CATEGORY):
            if not self.targets.isdisjoint(answered):
                found.wrong.add(NEVER_NEXT, f"{place} ({source})")
        else:
            said = [*asked, *answered]
            in_order = source.startswith(IN_ORDER)
            if in_order and not self.pairs.isdisjoint(itertools.pairwise(said)):
                found.wrong.add(SUCCESSION, f"{place} ({source})")
            elif not self.triples.isdisjoint(zip(said, said[1:], said[2:], strict=False)):
                found.wrong.add(SUCCESSION, f"{place} ({source})")


def by_user(taken, parts, users, number):
    """{user id: {number of a held-out item: its part}} of those that their user did not take in training.

    Args:
        number: [num_items] what items are compared by; those of equal ids may be equal.
    """
    size = int(number.max()) + 1
    own, items = taken.pairs()
    known = np.unique(own.astype(np.int64) * size + number[items])
    found = {}
    for name, part in parts.items():
        held = part.target >= 0  # of some protocols a test has none
        who, what = part.users[held].astype(np.int64), number[part.target[held]]
        new = ~np.isin(who * size + what, known)
        for user, item in zip(who[new].tolist(), what[new].tolist(), strict=True):
            found.setdefault(users[user], {}).setdefault(item, name)
    return found


def in_training(taken, number):
    """(numbers of what was taken, sequence behind sequence; [n] which sequence each is of)"""
    length = taken.end - taken.start
    return number[taken.pairs()[1]], np.repeat(np.arange(len(length)), length)


def windows(flat, of, n):
    """[W, n] what lies in succession in one sequence."""
    count = max(len(flat) - n + 1, 0)
    rows = np.stack([flat[k : k + count] for k in range(n)], 1)
    return rows[of[:count] == of[n - 1 : n - 1 + count]]


def last_of(part, number):
    """[E, 3] the last two items of each history and its target; -1 where a history has but one."""
    held = np.flatnonzero((part.target >= 0) & (part.end > part.start))
    rows = np.full((len(held), 3), -1, np.int64)
    end = part.end[held]
    rows[:, 1], rows[:, 2] = number[part.items[end - 1]], number[part.target[held]]
    two = end - part.start[held] > 1
    rows[two, 0] = number[part.items[end[two] - 2]]
    return rows


def only_in(held, trained, size):
    """Those rows of `held`, as tuples, that are no row of `trained`; both [n, k] of numbers below size."""
    both = np.concatenate([held, trained])
    key = both[:, 0]
    for column in both.T[1:]:  # numbered anew between columns, so that no product grows too large
        key = np.unique(key, return_inverse=True)[1].reshape(-1) * size + column
    new = ~np.isin(key[: len(held)], key[len(held) :])
    return frozenset(map(tuple, held[new].tolist()))
