"""Distributions of whole numbers as bars of text."""

from itertools import zip_longest

import numpy as np

BAR = 22  # characters of the longest bar
WIDTH = 53  # of a column
MOST_BINS = 10


def side_by_side(left, right=()):
    """Two blocks of lines as one, in two columns."""
    return [f"{a:<{WIDTH}}  {b}".rstrip() for a, b in zip_longest(left, right, fillvalue="")]


def histogram(title, values, growing=False):
    """Lines: a title with median, mean and most; a bar per bin of the values (whole numbers, not negative).

    Args:
        growing: bins 1, 2, 3-4, 5-8, …, for numbers of which most are small; else all but the last are
            equally wide, and the last takes the rarest.
    """
    values = np.asarray(values)
    most = int(values.max())
    starts = growing_starts(most) if growing else even_starts(values)
    counts = np.histogram(values, [*starts, most + 1])[0]
    lines = [f"{title}: median {np.median(values):g}, mean {values.mean():.1f}, most {most:,}"]
    bins = list(zip(starts, [*starts[1:], most + 1], counts, strict=True))
    for start, stop, count in bins[np.flatnonzero(counts)[0] :]:  # nothing lies before it
        label = f"{start}" if stop == start + 1 else f"{start}-{stop - 1}"
        bar = "█" * int(np.ceil(BAR * count / counts.max()))
        lines.append(f"{label:>13} {count:>10,} {bar}".rstrip())
    return lines


def growing_starts(most):
    """0, 1, 2, 3, 5, 9, …; or growing by 4 or more from bin to bin, so that MOST_BINS do."""
    factor = next(f for f in (2, 4, 8, 16, 64, 1024) if f ** (MOST_BINS - 1) >= most)
    starts = [0, 1]
    while (end := factor ** (len(starts) - 2)) < most:
        starts.append(end + 1)
    return starts


def even_starts(values):
    """Round starts of at most MOST_BINS bins."""
    least, usual = int(values.min()), int(np.quantile(values, 0.99, method="higher"))
    steps = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    step = next(s for s in steps if usual // s - least // s < MOST_BINS)
    return list(range(least // step * step, usual + 1, step))
