"""When things were taken, as rows of a table of learned vectors: parts of the calendar, and gaps.

Source: HLLM's paper (arXiv:2409.12740) reports a gain by timestamps; how, it does not say, so this is ours.
"""

import numpy as np

FIRST_YEAR, YEARS, GAPS = 1990, 64, 64
PARTS = {"year": YEARS, "month": 12, "weekday": 7, "hour": 24, "gap": GAPS}
ROWS = sum(PARTS.values())


def clock(times):
    """[n] seconds of one history, oldest first -> [n, 5] int64 rows of a table of ROWS.

    Row s knows times up to its own: its year, month, weekday and hour (UTC), and the gap to the item before,
    in steps of a factor of the square root of 2; the first has a gap of its own, as has a gap of 0.
    """
    seconds = np.floor(np.asarray(times, np.float64))
    days = np.floor(seconds / 86400).astype(np.int64)
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)  # since January 1970
    gaps = np.floor(2 * np.log2(1 + np.maximum(np.diff(seconds), 0))).astype(np.int64)
    parts = np.stack([
        np.clip(months // 12 + 1970 - FIRST_YEAR, 0, YEARS - 1), months % 12, (days + 3) % 7,
        (seconds // 3600 % 24).astype(np.int64),
        np.concatenate([np.zeros(min(len(seconds), 1), np.int64), np.minimum(gaps + 1, GAPS - 1)]),
    ], axis=1)  # fmt: skip
    return parts + np.cumsum([0, *list(PARTS.values())[:-1]])


def padded_clock(times, size):
    """The newest `size` times of b histories -> [b, size, 5] rows, padded with 0 on the right.

    What falls off the oldest side is not known: the gap of the first that is left is none.
    """
    padded = np.zeros((len(times), size, len(PARTS)), np.int64)
    for row, of_one in zip(padded, times, strict=True):
        rows = clock(of_one[-size:])
        row[: len(rows)] = rows
    return padded
