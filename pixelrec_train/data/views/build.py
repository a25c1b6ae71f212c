"""From two tables and semantic ids to a directory of samples."""

import heapq
from collections import Counter
from typing import NamedTuple

from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.views.families import VIEWS
from pixelrec_train.data.views.openonerec import MOST_LABELS
from pixelrec_train.data.views.parts import Part, part_of
from pixelrec_train.data.views.view import LABELS, TEXTS, Known, LeftOut, digest
from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds


class Plan(NamedTuple):
    """What is made: views, each with what was asked, of one part and catalogue."""

    views: list[tuple]  # (View, Asked)
    known: Known
    part: Part
    seed: int
    notes: list[str]  # what a person may want to know of what was read
    limits: dict[str, int] = {}  # View.group: rows of all its views together, at most

    def samples(self, counts, left_out):
        """(Sample, facts) of all views; counted by task, and what could not be made by (task, why)."""
        kept = {group: self.kept(group, most) for group, most in self.limits.items()}
        for view, asked in self.views:
            for sample, facts in view.samples(self.known, self.part, asked, self.seed):
                if isinstance(sample, LeftOut):
                    left_out[view.task, sample.why] += 1
                elif view.group in kept and sample.uuid not in kept[view.group]:
                    left_out[view.task, f"beyond --limit_{view.group}"] += 1
                else:
                    counts[view.task] += 1
                    yield sample, facts

    def kept(self, group, most):
        """Names of the samples of a group that a limit leaves, drawn by the seed."""
        names = (
            sample.uuid
            for view, asked in self.views
            if view.group == group
            for sample, _ in view.samples(self.known, self.part, asked, self.seed)
            if not isinstance(sample, LeftOut)
        )
        return set(heapq.nsmallest(most, names, lambda name: digest(self.seed, name)))


def views_of(tasks, split, form, has, text_keys=(), instead=None):
    """[(View, form)] of names. form: None = each view's own.

    Args:
        has: TEXTS, LABELS as far as they are there.
        instead: {task: View that makes it}, in place of those of VIEWS.
        text_keys: names of the texts that are read, CATEGORIES among them.

    Raises:
        InputError: a view has no such samples, or needs what is not there.
    """
    known = VIEWS | (instead or {})
    views = [(known[task], form or known[task].forms[0]) for task in tasks]
    for view, own in views:
        view.check(split, own, has, text_keys)
    return views


def plan(
    views, asked, tables, label_column, semantic_ids, codec, split, limits=None, also=frozenset(), **named
):  # fmt: skip
    """Plan of all that is read.

    Args:
        views: of views_of.
        asked: Asked; each view's form replaces its own.
        tables: DataFlags and TextFlags in one.
        label_column: of the interactions; None without views that need it.
        semantic_ids: their file.
        codec: name of the ids' spelling.
        limits: of Plan.
        also: what is read besides what the views need: TEXTS.
        named: categories_key and category of Known.

    Raises:
        InputError: the tables hold nothing of it, an item has no semantic id, or labels say nothing.
    """
    found = SemanticIds.load(semantic_ids)
    wants = {need for view, _ in views for need in view.needs} | also
    read = read_interactions(tables, label_column if LABELS in wants else None)
    part = part_of(split, read, tables, labelled=True)
    if LABELS in wants:
        check_labels(read, label_column, asked.positive, {view.task for view, _ in views})
    known, notes = known_of(read, found, tables if TEXTS in wants else None, codec, **named)
    of_views = [(view, view.settled(asked._replace(form=form))) for view, form in views]
    return Plan(of_views, known, part, asked.seed, notes, limits or {})


def known_of(read, found, tables, codec, **named):
    """(Known, [what a person may want to know of what was read]) of the items of Interactions.

    Args:
        found: SemanticIds.
        tables: TextFlags; None = texts are not read.
        codec: name of the ids' spelling.
        named: categories_key and category of Known.

    Raises:
        InputError: an item has no semantic id, or too many have no text.
    """
    notes, item_ids = list(read.notes), catalogue(read, found, tables)
    if cold := len(item_ids) - read.num_items:
        notes.append(f"{cold:,} items have a semantic id and are in no interaction: they are told of, too")
    texts = {}
    if tables:
        from pixelrec_train.data.item_fields import read_fields  # brings pandas and pyarrow with it

        fields, about = read_fields(item_ids, tables)
        notes += about["notes"]
        texts = {"text_keys": tuple(tables.text_keys), "fields": fields}
    codes, sizes = found.of(item_ids), found.codebook_sizes
    known = Known.spelled(item_ids, codes, CODECS[codec], sizes, **texts, **named)
    if shared := len(item_ids) - len(set(known.ids)):
        notes.append(f"{shared:,} items share their semantic id with another: samples cannot tell them apart")
    return known, notes


def catalogue(read, found, texts):
    """The items of the interactions, and behind them those that semantic ids (and texts) know besides.

    texts: TextFlags, or None where they are not read.
    """
    known = set(read.item_ids)
    others = [item_id for item_id in found.item_ids if item_id not in known]
    if others and texts:
        from pixelrec_train.data.item_fields import item_ids  # brings pandas and pyarrow with it

        told = set(item_ids(texts))
        others = [item_id for item_id in others if item_id in told]
    return [*read.item_ids, *others]


def check_labels(read, label_column, positive, tasks):
    """Raises InputError where a column's labels are none, or all of them are a yes, or a no."""
    names = [name for name in read.label_names if name]
    some = ", ".join(sorted(names)[:5])
    if not names:
        raise InputError(f"--label_column {label_column} is empty in all rows. Name another column.")
    if len(names) > MOST_LABELS and "label_cond_rec" in tasks:
        raise InputError(
            f"--label_column {label_column} holds {len(names):,} different values ({some}, …); "
            f"label_cond_rec asks for each, so at most {MOST_LABELS}. Group them in the table."
        )
    yes = positive & set(names)
    if "label_pred" in tasks and (not yes or len(yes) == len(names)):
        which = "All" if yes else "None"
        raise InputError(
            f"{which} of the labels of --label_column {label_column} ({some}) is among --positive_labels "
            f"{','.join(sorted(positive))}, so there is nothing to tell apart. Say which labels are a yes."
        )


def summary(plan, counts, left_out):
    """For facts.json and people: how many samples of which task, and what was left out."""
    sequences = plan.part.end - plan.part.start
    return {
        "split": plan.part.name,
        "origin": plan.part.origin,
        "sequences": len(sequences),
        "sequences_of_one_item_or_none": int((sequences < 2).sum()),
        "items": len(plan.known.item_ids),
        "samples": {view.task: counts[view.task] for view, _ in plan.views},
        "forms": {view.task: asked.form for view, asked in plan.views},
        "left_out": [{"task": task, "why": why, "samples": count} for (task, why), count in left_out.items()],
        "notes": plan.notes,
    }


def counters():
    return Counter(), Counter()
