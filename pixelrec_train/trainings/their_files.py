"""Our two tables and semantic ids as MiniOneRec's or OneRec-Think's own files, whole or not at all."""

import itertools
from collections import Counter
from pathlib import Path

from pixelrec_train.config.layouts import MINIONEREC, SPELLINGS
from pixelrec_train.config.reading import LAST_ITEM
from pixelrec_train.data.convert import minionerec, onerec_think
from pixelrec_train.data.convert.tables import Tables
from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.views import build
from pixelrec_train.data.views.minionerec import HISTORY
from pixelrec_train.data.views.parts import part_of
from pixelrec_train.data.views.rows import PARTS
from pixelrec_train.data.views.view import ALL, CATEGORIES, CHAT, DESCRIPTION, TEXTS, TITLE, check_texts
from pixelrec_train.errors import InputError
from pixelrec_train.files import made_whole, write_json
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.trainings.build_samples import FACTS, check_free, lines, plan_of, some, views_of


def main(config):
    """config: BuildSamplesConfig whose layout is another project's."""
    name = config.name or Path(config.interaction_data).name.split(".")[0] or "data"
    of_minionerec = config.layout == MINIONEREC
    mark = f"index/{name}.index.json" if of_minionerec else f"{name}{onerec_think.ITEMS}"
    check_free(config, (FACTS, mark), "files")
    needed = (TITLE, DESCRIPTION) if of_minionerec else (TITLE, DESCRIPTION, CATEGORIES)
    check_texts(f"--layout {config.layout}", needed, config.texts_by_name)
    told = (minionerec_files if of_minionerec else onerec_think_files)(config, name)
    facts = {"layout": config.layout, "name": name}

    def make(directory):
        facts.update(told(directory))
        facts["files"] = sorted(str(f.relative_to(directory)) for f in directory.rglob("*") if f.is_file())
        write_json(directory / FACTS, facts)

    made_whole(config.output_dir, make)
    print(*lines(facts, "train") if facts.get("samples") else facts["notes"], sep="\n")
    for part, count in facts.get("rows", {}).items():
        print(f"{part:<6}{count:>12,} rows")
    print(f"split: {facts['origin']}")
    print(f"made {config.output_dir}: {', '.join(facts['files'])} and {FACTS}")


def minionerec_files(config, name):
    """What writes MiniOneRec's files into a directory and gives facts."""
    read, found = read_interactions(config), SemanticIds.load(config.semantic_ids)
    names = PARTS if config.split_protocol != LAST_ITEM else PARTS[:2]  # it has no targets of test
    parts = [part_of(part, read, config, labelled=True) for part in names]
    key = config.key_of_categories
    known, notes = build.known_of(read, found, config, SPELLINGS[MINIONEREC], categories_key=key)
    history, counts = config.history or HISTORY, Counter({part: 0 for part in names})

    def rows():
        for part in parts:
            for row in rows_of(part, known, history):
                counts[part.name] += 1
                yield row

    def told(directory):
        tags = texts_of(known, CATEGORIES) if key in known.text_keys else None
        titles, descriptions = texts_of(known, TITLE), texts_of(known, DESCRIPTION)
        minionerec.write(
            directory, name, known.item_ids, known.words, titles, descriptions, rows(), tags
        )  # fmt: skip
        return {
            "origin": parts[0].origin, "items": len(known.item_ids), "history": history,
            "rows": dict(counts), "notes": notes,
        }  # fmt: skip

    return told


def rows_of(part, known, history):
    """Yields (part, user id, item id, [item id of the history]), a user's oldest first, as prep reads them.

    Part.nexts gives the newest of a sequence first.
    """
    for _, own in itertools.groupby(part.nexts(history, ALL), lambda stretch: stretch.key[:2]):
        for stretch in reversed(list(own)):
            before = [known.item_ids[item] for item in stretch.history]
            yield part.name, stretch.key[0], known.item_ids[stretch.targets[0]], before


def texts_of(known, name):
    return [known.text(item, name) for item in range(len(known.item_ids))]


def onerec_think_files(config, name):
    """What writes OneRec-Think's files into a directory and gives facts."""
    views = views_of(config)
    for view, form in views:
        if form != CHAT:
            raise InputError(
                f"--layout {config.layout} holds chats, but --task {view.task} makes documents here. Leave "
                f"it out{', or --form' * (config.form is not None)}."
            )
    read = read_interactions(config)
    if read.of_sessions:
        raise InputError(
            f"--layout {config.layout} holds all that a user took in a line, but {config.interaction_data} "
            f"holds sessions, each a history and its target. Name a table with a row each taking."
        )
    plan = plan_of(config, views, SPELLINGS[config.layout], also={TEXTS})
    counts, left_out = build.counters()
    samples, known = some(config, plan, counts, left_out), plan.known
    found = SemanticIds.load(config.semantic_ids)
    titles, tags, descriptions = (texts_of(known, text) for text in (TITLE, CATEGORIES, DESCRIPTION))
    codes, sizes = found.of(known.item_ids), found.codebook_sizes
    item_ids = list(read.item_ids)
    histories = {
        user_id: [item_ids[item] for item in read.items[start:end].tolist()]
        for user_id, start, end in zip(read.user_ids, read.offsets[:-1], read.offsets[1:], strict=True)
    }
    if sizes != (onerec_think.SIZE,) * len(sizes):
        plan.notes.append(
            f"scripts/prep.py reads these files back with --codebook_sizes {','.join(map(str, sizes))}"
        )

    def told(directory):
        from pixelrec_train.data.convert.onerec_think_parquet import write_conversations, write_their_files

        ids = SemanticIds(known.item_ids, codes, sizes)
        items = list(zip(known.item_ids, titles, tags, descriptions, strict=True))
        onerec_think.write(
            directory, name, known.item_ids, codes, sizes, titles, descriptions, tags, histories.items()
        )  # fmt: skip
        write_their_files(directory, name, Tables(items, histories, ids, None, {}, []))
        write_conversations(directory / f"{name}_conversations_train_onerec.parquet", samples)
        facts = {"users": len(histories), "interactions": len(read.items), "seed": config.seed}
        return build.summary(plan, counts, left_out) | facts

    return told
