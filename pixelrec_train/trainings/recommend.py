"""A checkpoint of either head, or a blend, that names items for people: the one door for commands and
libraries."""

import difflib
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pixelrec_train.config.judging import RankingFlags
from pixelrec_train.config.reading import TextFlags
from pixelrec_train.config.recommending import RecommendConfig
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.generation import Generated
from pixelrec_train.evaluation.index import unit
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.retrieval import TwoTower
from pixelrec_train.recommend.checkpoints import data_files, load_either, load_generative
from pixelrec_train.recommend.new_ids import with_new_ids
from pixelrec_train.recommend.parts import UNTRAINED, checkpoints_of, is_blend
from pixelrec_train.recommend.trained import is_generative
from pixelrec_train.trainings.load_blend import load_blend, named, told


class Recommendation(NamedTuple):
    item_id: str
    score: float  # cosine, log-probability or a blend's; of one checkpoint they compare
    text: str | None  # the first of its texts; None where none is known
    because: str | None  # the id of the history's item that it is nearest to
    likeness: float | None  # cosine of the two embeddings, or codes that their semantic ids begin with alike
    semantic_id: tuple[int, ...] | None  # of a generative model


class Recommender:
    """Recommender.load(checkpoint).recommend([["a", "b"], …], k=10) -> a list of Recommendation for each."""

    def __init__(self, loaded, texts):
        """
        Args:
            loaded: recommend.checkpoints.Loaded.
            texts: [the first text of every item or None]; None = not read.
        """
        self.loaded, self.texts = loaded, texts
        self.recommender, self.data = loaded.recommender, loaded.inputs.interactions
        self.item_ids = list(self.data.item_ids)
        self.number = {item_id: n for n, item_id in enumerate(self.item_ids)}

    @staticmethod
    def load(checkpoint, **flags):
        """Of a checkpoint directory, A+B, or a blend.json; flags: those of scripts/recommend.py.

        Raises:
            InputError: it cannot be loaded, or the data it was trained on is not there.
        """
        return Recommender.of(RecommendConfig(checkpoint=str(checkpoint), **flags))

    @staticmethod
    def of(config):
        """config: RecommendConfig."""
        path, new = config.checkpoint, config.new_items
        files = data_files(config, text_data=config.text_data, allow_missing_text=config.allow_missing_text)
        if is_blend(path) or config.hybrid:
            if new:
                raise InputError(
                    f"--new_items {new} is for one checkpoint, but {path} is a blend. Name one of its parts."
                )
            loaded, _ = load_blend(config)
        elif is_generative(path):
            loaded = load_generative(
                path, files, config.trust_remote_code, config.num_beams, new and new_ids_by(config, files)
            )  # fmt: skip
        else:
            loaded = load_either(path, files, config.trust_remote_code, config, config.num_beams, new)
        return Recommender(loaded, texts_of(config, loaded.inputs.interactions.item_ids))

    def history_of(self, user):
        """[item id] of all that a user of the data took, oldest first; raises as `taken_by`."""
        return [self.item_ids[item] for item in self.data.items[self.taken_by(user)].tolist()]

    def times_of(self, user):
        """[seconds] when the user took them; None where the data has no times, or no model reads them."""
        return None if self.data.times is None else self.data.times[self.taken_by(user)]

    def taken_by(self, user):
        """Where the items of a user of the data lie in it.

        Raises:
            InputError: nobody is called so.
        """
        names = self.data.user_ids
        if user not in names:
            raise unknown(user, names, "user")
        number = names.index(user)
        return slice(*self.data.offsets[number : number + 2].tolist())

    def recommend(self, histories, k=10, exclude_seen=True, times=None):
        """The k best items for each of several people.

        Args:
            histories: lists of item ids, oldest first, none of them empty.
            exclude_seen: whether items of the history are left out.
            times: for a model that reads them (--time_features), when each item was taken: lists of seconds
                since 1970.

        Returns:
            [[Recommendation], best first; fewer than k where the catalogue has no more]

        Raises:
            InputError: an item is not in the catalogue, or a history is empty.
        """
        rows = [self.numbers(history) for history in histories]
        if not rows:
            return []
        ranking = RankingFlags(topk=(min(k, len(self.item_ids)),), keep_seen=not exclude_seen)
        lists = judge(self.recommender, asked_for(rows, times), ranking, keep_lists=True).lists
        both = zip(rows, lists.items, lists.scores, strict=True)
        return [self.told(items[items >= 0], scores[items >= 0], row) for row, items, scores in both]

    def numbers(self, history):
        if not len(history):
            raise InputError("a history is empty: there is nothing to go by. Name at least one item.")
        for item_id in history:
            if item_id not in self.number:
                raise unknown(item_id, self.item_ids, "item")
        return np.array([self.number[item_id] for item_id in history], np.int64)

    def told(self, items, scores, history):
        """[Recommendation] of n item numbers, each with its score and why."""
        like = self.likeness(items, history)
        places, values = [None] * len(items), [None] * len(items)
        if like is not None:
            newest = len(history) - 1 - like[:, ::-1].argmax(1)  # of equals
            values = np.take_along_axis(like, newest[:, None], axis=1)[:, 0].tolist()
            places = history[newest].tolist()
        return [
            Recommendation(
                self.item_ids[item], score, self.texts and self.texts[item],
                None if place is None else self.item_ids[place], value, self.codes(item),
            )
            for item, score, place, value in zip(items.tolist(), scores.tolist(), places, values, strict=True)
        ]  # fmt: skip

    def likeness(self, items, history):
        """[n, h] how much each item is like each of the history: the cosine of their embeddings, or the codes
        that both ids begin with; None where neither is known."""
        if isinstance(self.recommender, TwoTower):
            of_items, of_history = (unit(self.recommender.rows(n), np.float64) for n in (items, history))
            return of_items @ of_history.T
        if isinstance(self.recommender, Generated):
            same = self.all_codes[items][:, None] == self.all_codes[history]
            return np.cumprod(same, axis=2).sum(2).astype(np.float64)
        return None

    def codes(self, item):
        if not isinstance(self.recommender, Generated):
            return None
        return tuple(code for code in self.all_codes[item].tolist() if code >= 0)

    @cached_property
    def all_codes(self):
        """[num_items, L] of a generative model."""
        trie = self.recommender.trie
        return trie.ids()[trie.leaf_of]


def asked_for(rows, times=None):
    """HeldOut of these histories; what comes next nobody knows.

    Raises:
        InputError: there are not as many times as items.
    """
    ends = np.cumsum([len(row) for row in rows])
    if times is not None:
        if [len(of_one) for of_one in times] != [len(row) for row in rows]:
            raise InputError("times must have one number for each item of each history.")
        times = np.concatenate([np.asarray(of_one, np.float64) for of_one in times])
    unknown = np.full(len(rows), -1)
    return HeldOut(np.arange(len(rows)), np.append(0, ends[:-1]), ends, unknown, np.concatenate(rows), times)


def new_ids_by(config, files):
    """SemanticIds of a generative model -> those with the items of --new_items behind them."""
    if not config.codebooks:
        raise InputError(
            f"--new_items {config.new_items}: a generative model says semantic ids. Name the directory of "
            "its own, which scripts/build_semantic_ids.py wrote, with --codebooks."
        )
    return lambda ids: with_new_ids(
        ids, config.codebooks, config.new_items, files, config.trust_remote_code, config.eval_tokens
    )


def texts_of(config, item_ids):
    """[the first text of every item, None where it has none]; None where no table of them is known."""
    file, parts = named(config.checkpoint)
    texts = told(TextFlags, file, checkpoints_of(parts, "--checkpoint", UNTRAINED), config)
    texts = replace(texts, allow_missing_text=True)
    if not texts.text_data:
        return None
    from pixelrec_train.data.item_fields import first_texts  # brings pandas and pyarrow with it

    found = first_texts(item_ids, texts)
    if config.new_items:
        more = first_texts(item_ids, replace(texts, text_data=config.new_items))
        found = [old if new is None else new for old, new in zip(found, more, strict=True)]
    return found


def unknown(name, names, what):
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else f" One is {names[0]!r}."
    return InputError(f"there is no {what} {name!r} among {len(names):,}.{hint}")
