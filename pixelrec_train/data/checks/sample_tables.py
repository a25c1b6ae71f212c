"""What is found in files of samples, as tables: samples of each source, and itemic tokens."""

from itertools import zip_longest

MOST_SOURCES = 30  # rows of a table


def counts(found, files):
    """Lines: counts by source, the largest first."""
    samples = found.chats + found.documents
    total, chats, documents = samples.total(), found.chats.total(), found.documents.total()
    where = f"{files:,} file{'s' * (files != 1)}"
    yield f"samples: {total:,} in {where}: {chats:,} chats, {documents:,} documents"
    if not total:
        return
    heads = ["source", "samples", "share", "chats", "documents", "characters", "tokens", "labels"]
    rows = [heads[: None if found.measured else -2]]
    for name, count in samples.most_common(MOST_SOURCES):
        row = [
            name,
            f"{count:,}",
            f"{count / total:.1%}",
            f"{found.chats[name]:,}",
            f"{found.documents[name]:,}",
        ]
        row += [f"{found.characters[name] / count:,.1f}"]
        if measured := found.measured[name]:
            row += [f"{found.tokens[name] / measured:,.1f}", f"{found.labels[name] / found.tokens[name]:.1%}"]
        rows.append(row)
    yield ""
    yield from aligned(rows)
    if len(samples) > MOST_SOURCES:
        yield f"and {len(samples) - MOST_SOURCES:,} sources more"
    tokens = "; labels are the share of tokens to be learned" if found.measured else ""
    yield f"characters and tokens are the mean of a sample{tokens}"


def itemic(found, catalogue):
    """Lines: itemic tokens of each source and level, and how many ids of the catalogue it names."""
    samples = found.chats + found.documents
    levels = 1 + max((level for _, level in found.itemic), default=-1)
    levels = max(levels, len(catalogue.sizes))
    yield (
        f"ids: {len(catalogue.numbers):,} of {catalogue.items:,} items, in the spelling "
        f"{catalogue.codec.name}; the tokens of each level of ids in the samples, and how many ids are there:"
    )
    rows = [["source", *(f"level {level + 1}" for level in range(levels)), "ids", "of all"]]
    for name, _ in samples.most_common(MOST_SOURCES):
        ids = len(found.seen.get(name, ()))
        row = [name, *(f"{found.itemic[name, level]:,}" for level in range(levels))]
        rows.append([*row, f"{ids:,}", f"{ids / len(catalogue.numbers):.1%}"])
    yield from aligned(rows)
    if len(samples) > MOST_SOURCES:
        yield f"and {len(samples) - MOST_SOURCES:,} sources more"


def aligned(rows):
    """Lines of cells, the first column to the left."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    for name, *cells in rows:
        yield "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])
