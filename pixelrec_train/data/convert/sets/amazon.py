"""What the three editions of Amazon's reviews have in common."""

import re

from pixelrec_train.data.convert.sets.given import only, pick
from pixelrec_train.data.convert.sets.lines import id_of, member, number_of, plain, records, split_lines
from pixelrec_train.data.convert.sets.source import Item, Source, blocks_of

META = ("meta_*.json", "meta_*.json.gz", "meta_*.jsonl", "meta_*.jsonl.gz", "meta_*.parquet")
ROWS = ("*.json", "*.json.gz", "*.jsonl", "*.jsonl.gz", "*.csv", "*.csv.gz")
PLAIN_NAME = re.compile(r"^(reviews|ratings)_|(\.jsonl?|\.csv)(\.gz)?$", re.I)


def pair(files, name):
    """(file of reviews or ratings, file of items, category, whether it is a 5-core)"""
    what = "items: meta_CATEGORY.json…"
    meta = only(files, name, what, *META)
    rows = only(files, name, f"reviews or ratings beside {meta.name}", *ROWS, but=META)
    category = PLAIN_NAME.sub("", PLAIN_NAME.sub("", rows.name))
    return rows, meta, category.removesuffix("_5"), category.endswith("_5")


def by_reviewers(files, name, order, categories, published=lambda category: []):
    """Source of the editions that name users by reviewerID.

    Args:
        order: of the fields of ratings without a header.
        categories: key of a product's.
        published: category -> [Published].
    """
    rows, meta, category, five_core = pair(files, name)
    if is_json(rows):
        found = reviews(rows, "reviewerID", "asin", "unixReviewTime", "overall")
    else:
        found = ratings(rows, order)
    items = products(meta, "asin", "brand", categories, ("description",))
    title = f"{name}_{category.lower()}{'_5' * five_core}"
    return Source(title, [rows, meta], blocks_of(found), items, published(category))


def reviews(path, user, item, time, rating):
    """Yields rows of JSON lines; the last four: keys of a review."""
    for where, record in records(path):
        yield (
            id_of(member(record, user, where), where), id_of(member(record, item, where), where),
            number_of(member(record, time, where), time, where),
            number_of(member(record, rating, where), rating, where),
        )  # fmt: skip


def ratings(path, order):
    """Yields the same of lines without a header, whose fields stand in that order."""
    for where, fields in split_lines(path, ",", order):
        row = dict(zip(order, fields, strict=True))
        yield (
            id_of(row["user"], where), id_of(row["item"], where),
            *(number_of(row[name], f"the {name}", where) for name in ("timestamp", "rating")),
        )  # fmt: skip


def products(path, item, maker, categories, texts):
    """Yields Item of every line of metadata.

    Args:
        item, maker, categories: keys of its id, brand or store, and (lists of) its categories.
        texts: keys whose texts are its description, one behind the other.
    """
    for where, record in records(path):
        title = plain(record.get("title"))
        if "getTime" in title:  # a script in the place of a title, as the makers of 2018 warn of
            title = ""
        tag = "; ".join(filter(None, (plain(record.get(maker)), path_of(record.get(categories)))))
        description = " ".join(filter(None, (plain(record.get(text)) for text in texts)))
        yield Item(id_of(member(record, item, where), where), title, tag, description)


def path_of(categories):
    """ "Beauty > Hair Care" of a list, and of a list of lists all of them."""
    if isinstance(categories, list) and any(isinstance(one, list) for one in categories):
        return "; ".join(filter(None, map(path_of, categories)))
    if isinstance(categories, list):
        return " > ".join(filter(None, map(plain, categories)))
    return plain(categories)


def is_json(path):
    return bool(pick([path], "*.json", "*.json.gz", "*.jsonl", "*.jsonl.gz"))
