"""A directory with MiniOneRec's files, see minionerec.py, as our tables."""

from pathlib import Path

from pixelrec_train.data.convert.minionerec_items import Items
from pixelrec_train.data.convert.minionerec_rows import histories_of, read_rows
from pixelrec_train.data.convert.reading import found, listed, needed, patterns_of
from pixelrec_train.data.convert.tables import Tables
from pixelrec_train.data.given_split import PARTS
from pixelrec_train.data.semantic_id_files import read_index
from pixelrec_train.errors import InputError


def read(directory, name=None, code_base=None):
    """Tables of a directory with their files; info.txt and two of the CSVs may be absent, which is said.

    Args:
        name: of the data set, with which the files' names begin; None = there is one data set alone.
        code_base: 0 or 1, their first code; None = looked for, see semantic_id_files.read_index.

    Raises:
        InputError: a file is missing or of another form, or two of them say different things of an item.
    """
    paths = paths_of(Path(directory), name)
    ids = read_index(paths["index"], "minionerec", code_base=code_base, flag_name="")
    items = Items.read(paths["index"], paths["item"])
    csvs = {part: paths[part] for part in PARTS if paths[part]}
    rows = [row for part, path in csvs.items() for row in read_rows(path, part, items)]
    histories, apart = histories_of(rows)
    facts = {
        "source": "minionerec",
        "name": name or paths["index"].name.removesuffix("index.json").rstrip(".") or None,
        "files": [str(path.relative_to(directory)) for path in paths.values() if path],
        "absent": [kind for kind, path in paths.items() if path is None],
        "items": len(items.rows),
        "levels": ids.levels,
        "code_base": ids.facts["code_base"],
        "items_that_share_their_id": repeats(items.spelled.values()),
        "items_that_share_their_title": repeats(filter(None, items.titles.values())),
        "items_in_no_row": untaken(items, histories),
        "items_info_lacks": items.lacking(paths["info"]) if paths["info"] else [],
        "users": len(histories),
        "interactions": sum(map(len, histories.values())),
        "rows": {part: sum(row[0] == part for row in rows) for part in csvs},
        "rows_apart": apart,
        "titles_that_differ": items.other_titles,
        "first_title_that_differs": items.first_other_title,
    }
    return Tables(items.rows, histories, ids, rows, facts, list(lines(facts)))


def paths_of(directory, name):
    """{"train", "valid", "test", "index", "item", "info": its file; None where it is not there}"""
    paths = {}
    for kind, folder, ending in (*((part, part, ".csv") for part in PARTS), ("info", "info", ".txt")):
        forms = f"{folder}/{{name}}{ending}", f"{folder}/{{name}}*{ending}", f"{kind}{ending}"
        paths[kind] = found(directory, patterns_of(name, *forms))
    if not any(paths[part] for part in PARTS):
        raise InputError(
            f"--data_dir {directory} holds no CSV of {', '.join(PARTS)}: neither train/{name or 'NAME'}….csv "
            f"nor train.csv, and so on. Copy them there."
        )
    for kind in ("index", "item"):
        forms = f"{{name}}.{kind}.json", f"index/{{name}}.{kind}.json", f"{kind}.json"
        paths[kind] = needed(directory, patterns_of(name, *forms))
    return paths


def repeats(values):
    """How many of them stand there earlier as well."""
    values = list(values)
    return len(values) - len(set(values))


def untaken(items, histories):
    """[item id] that no row names: what reads the interactions does not know them."""
    taken = {item_id for history in histories.values() for item_id in history}
    return [item_id for item_id in items.spelled if item_id not in taken]


def lines(facts):
    """What a person reads of it."""
    yield (
        f"items: {facts['items']:,}, with ids of {facts['levels']} levels whose first code is "
        f"{facts['code_base']}"
    )
    for what in ("id", "title"):
        if count := facts[f"items_that_share_their_{what}"]:
            yield f"items that share their {what} with an earlier one: {count:,}"
    yield "rows: " + ", ".join(f"{count:,} of {part}" for part, count in facts["rows"].items())
    yield f"interactions: {facts['interactions']:,} of {facts['users']:,} users, put together from the rows"
    if facts["absent"]:
        yield f"not there: {', '.join(facts['absent'])}"
    if facts["rows_apart"]:
        yield (
            f"rows that do not go on where their user's row before ended: {facts['rows_apart']:,}; what they "
            f"have more stands behind it"
        )
    if items := facts["items_in_no_row"]:
        yield f"items that no row names, so the interactions lack them: {len(items):,} ({listed(items)})"
    if items := facts["items_info_lacks"]:
        yield f"items that the info file lacks: {len(items):,} ({listed(items)})"
    if facts["titles_that_differ"]:
        yield (
            f"titles that are not those of the item file, which are taken: {facts['titles_that_differ']:,}, "
            f"first {facts['first_title_that_differs']}"
        )
