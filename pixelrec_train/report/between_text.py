"""What changed between runs, for a terminal."""

from pixelrec_train.report.between import changes


def lines_of(pair):
    """What a person reads in a terminal."""
    first, other = pair.first, pair.other
    users = len(first.places)
    yield f"A = {first.name} ({first.found.model}), B = {other.name} ({other.found.model}); {users:,} users"
    yield ""
    yield from in_columns("all users, %", pair.metrics)
    for title, parts in pair.slices.items():
        yield from in_columns(f"recall@{pair.k} {title}, %", parts)
    same = users - len(pair.gained) - len(pair.lost) - pair.hits
    yield (
        f"at {pair.k}: {len(pair.gained):,} users became a hit, {len(pair.lost):,} became a miss, "
        f"{pair.hits:,} are a hit in both, {same:,} in neither"
    )
    for what, numbers in (("became a hit", pair.gained), ("became a miss", pair.lost)):
        for user, target, text, before, after in changes(pair, numbers):
            named = f"{target} “{text}”" if text else target
            yield f"  {what}: {user}, {named}: place {before or 'absent'} -> {after or 'absent'}"
    yield ""


def in_columns(title, parts):
    """A Markdown table of {name: Delta}."""
    width = max(map(len, (title, *parts)))
    yield f"| {title:<{width}} | users |     A |     B |  B - A | 95 % of it       |      p |"
    yield f"|{'-' * (width + 2)}|------:|------:|------:|-------:|------------------|-------:|"
    for name, d in parts.items():
        low, high = (100 * x for x in d.interval)
        yield (
            f"| {name:<{width}} | {d.users:>5} | {100 * d.before:5.2f} | {100 * d.after:5.2f} "
            f"| {100 * (d.after - d.before):+6.2f} | {f'{low:+.2f} … {high:+.2f}':<16} | {d.p:.4f} |"
        )
    yield ""
