"""From two tables and semantic ids to a directory of samples."""

from collections import Counter
from typing import NamedTuple

from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.views.openonerec import MOST_LABELS, VIEWS
from pixelrec_train.data.views.parts import Part, part_of
from pixelrec_train.data.views.view import LABELS, TEXTS, Known, LeftOut
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

    def samples(self, counts, left_out):
        """(Sample, facts) of all views; counted by task, and what could not be made by (task, why)."""
        for view, asked in self.views:
            for sample, facts in view.samples(self.known, self.part, asked, self.seed):
                if isinstance(sample, LeftOut):
                    left_out[view.task, sample.why] += 1
                else:
                    counts[view.task] += 1
                    yield sample, facts


def views_of(tasks, split, form, has):
    """[(View, form)] of names. form: None = each view's own. has: TEXTS, LABELS as far as they are there.

    Raises:
        InputError: a view has no such samples, or needs what is not there.
    """
    views = [(VIEWS[task], form or VIEWS[task].forms[0]) for task in tasks]
    for view, own in views:
        view.check(split, own, has)
    return views


def plan(views, asked, tables, label_column, semantic_ids, codec, split, seed):
    """Plan of all that is read.

    Args:
        views: of views_of.
        asked: Asked; each view's form replaces its own.
        tables: DataFlags and TextFlags in one.
        label_column: of the interactions; None without views that need it.
        semantic_ids: their file.
        codec: name of the ids' spelling.

    Raises:
        InputError: the tables hold nothing of it, an item has no semantic id, or labels say nothing.
    """
    found = SemanticIds.load(semantic_ids)
    wants = {need for view, _ in views for need in view.needs}
    read = read_interactions(tables, label_column if LABELS in wants else None)
    part = part_of(split, read, tables)
    if LABELS in wants:
        check_labels(read, label_column, asked.positive, {view.task for view, _ in views})
    codes = found.of(read.item_ids)
    spell, sizes = CODECS[codec].text, found.codebook_sizes
    ids, fields, notes = [spell(row, sizes) for row in codes.tolist()], None, list(read.notes)
    if TEXTS in wants:
        from pixelrec_train.data.item_fields import read_fields  # brings pandas and pyarrow with it

        fields, about = read_fields(read.item_ids, tables)
        notes += about["notes"]
    if shared := len(ids) - len(set(ids)):
        notes.append(f"{shared:,} items share their semantic id with another: samples cannot tell them apart")
    known = Known(read.item_ids, ids, tuple(tables.text_keys), fields)
    return Plan([(v, asked._replace(form=form)) for v, form in views], known, part, seed, notes)


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
