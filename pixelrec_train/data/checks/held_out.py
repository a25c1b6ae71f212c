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
class HeldOutOfUsers:
    """Held-out items that their user did not take in training; of user u, rows start[u] to start[u + 1]."""

    place: dict  # user id -> u
    start: list  # [U + 1]
    items: list  # item ids
    numbers: list  # of their ids in the catalogue; -1 where there is none or the user took one of that id
    parts: list  # "valid" or "test"

    @staticmethod
    def of(split, users, item_ids, number):
        """number: [num_items] of each item's id in the catalogue; or None."""
        held = {"valid": split.valid, "test": split.test}
        labelled = {name: part.target >= 0 for name, part in held.items()}  # some protocols' test has none
        who = np.concatenate([part.users[labelled[name]] for name, part in held.items()]).astype(np.int64)
        what = np.concatenate([part.target[labelled[name]] for name, part in held.items()])
        parts = np.repeat(list(held), [labelled[name].sum() for name in held])
        own, taken = split.taken.pairs()

        def new(numbers):
            size = int(numbers.max(initial=0)) + 1
            return ~np.isin(who * size + numbers[what], own.astype(np.int64) * size + numbers[taken])

        kept = new(np.arange(len(item_ids)))
        ids = np.full(len(what), -1) if number is None else np.where(new(number), number[what], -1)
        order = np.flatnonzero(kept)[np.argsort(who[kept], kind="stable")]
        start = np.searchsorted(who[order], np.arange(len(users) + 1)).tolist()
        items = [item_ids[item] for item in what[order].tolist()]
        place = {user: u for u, user in enumerate(users)}
        return HeldOutOfUsers(place, start, items, ids[order].tolist(), parts[order].tolist())

    def find(self, user, item_ids, numbers):
        """(item id, part) of the first of its items that is named, or None."""
        u = self.place[user]
        for row in range(self.start[u], self.start[u + 1]):
            if self.items[row] in item_ids or self.numbers[row] in numbers:
                return self.items[row], self.parts[row]
        return None


@dataclass(frozen=True)
class HeldOutRows:
    """What is held out; pairs, triples and targets by the numbers of ids in the catalogue, if it is known."""

    of_users: HeldOutOfUsers
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
        number = catalogue and np.array([catalogue.number_of_item[item_id] for item_id in item_ids], np.int64)
        of_users = HeldOutOfUsers.of(split, users, item_ids, number)
        known = f"{len(of_users.items):,} items that their user had not taken before"
        summary = f"held out: {split.origin}; looked for are {known}"
        if catalogue is None:
            return HeldOutRows(of_users, frozenset(), frozenset(), frozenset(), summary)
        size = len(catalogue.numbers)
        flat, inner = in_training(split.taken, number)
        held = np.concatenate([last_of(part, number) for part in (split.valid, split.test)])
        two, three = held[:, 1:], held[held[:, 0] >= 0]
        trained = windows(flat, inner, 2)
        targets = frozenset(np.setdiff1d(two[:, 1], trained[:, 1]).tolist())
        pairs, triples = only_in(two, trained, size), only_in(three, windows(flat, inner, 3), size)
        return HeldOutRows(of_users, pairs, triples, targets, summary)

    def check(self, source, facts, asked, answered, found, place):
        """Add to Found what a sample holds of it.

        Args:
            facts: its metadata.
            asked, answered: numbers of the ids in its question and in its answer, in order; of a document all
                are in the answer.
        """
        user, targets = facts.get("user_id"), facts.get("target_item_ids")
        if user is not None and (user := str(user)) in self.of_users.place:
            named = {str(item) for item in targets} if isinstance(targets, list) else ()
            if leak := self.of_users.find(user, named, {*asked, *answered}):
                found.wrong.add(USERS, f"{place} (user {user!r}, item {leak[0]!r}, of {leak[1]})")
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
