"""From a CSV of ten million interactions to arrays, and of a million texts to embeddings, each in a process.

What is imported up here counts as its memory, so that is little.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import peers
from benchmarks.measure import Meter, in_a_process, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.config import TableFlags
from pixelrec_train.data import interactions

TINY = {"rows": 20_000}
ROWS_PER_USER, ROWS_PER_ITEM = 10, 50


@benchmark(unit="CPU s", goal=Goal("value", at_most=10), tiny=TINY)
def read_10m(inputs, rows=10_000_000):
    """A CSV never seen before -> every user's items, and the cache of it."""
    ours, theirs = readings(rows)["ours"], readings(rows)["peer"]
    return Result.of_times(ours, theirs, f"{rows:,} rows; pandas and groupby-apply on as many")


@benchmark(unit="GB", goal=Goal("value", at_most=1.5), tiny=TINY)
def read_10m_memory(inputs, rows=10_000_000):
    """Peak memory of the whole process, its imports included."""
    ours, theirs = readings(rows)["ours"].peak_gb, readings(rows)["peer"].peak_gb
    return Result(ours, theirs, theirs / ours, note="peak of the process, imports included")


@benchmark(unit="wall s", goal=Goal("value", at_most=1), tiny=TINY)
def read_10m_again(inputs, rows=10_000_000):
    """The same file again, from the cache; the file is read to know that it is the same."""
    again = readings(rows)["again"]
    return Result(again.wall, note=f"from the cache, file fingerprint included; {again.cpu:.2f} CPU s")


@benchmark(unit="GB", goal=Goal("value", at_most=0.8), tiny={"items": 2000})
def embed_items(inputs, items=1_000_000, hidden=64):
    """Peak memory of scripts/embed_items.py, its imports, reading and tokenising included."""
    from pixelrec_train.model.tiny import write_towers

    with tempfile.TemporaryDirectory(prefix="pixelrec-benchmark-") as folder:
        with open(f"{folder}/items.csv", "w") as file:
            file.write("item_id,title\n")
            file.writelines(f"i{n:08},{title(n)}\n" for n in range(items))
        write_towers(map(title, range(2000)), f"{folder}/towers", hidden_size=hidden, layers=1)
        first, again = (in_a_process(embed, folder) for _ in range(2))
    table = 4 * items * hidden / 1e9
    note = f"{items:,} texts, width {hidden}: the table is {table:.2f}; {again.peak_gb:.2f} once tokenised"
    return Result(first.peak_gb, wall=first.wall, note=f"{note}; {items / again.cpu:,.0f} items per CPU s")


def title(n):
    """Two to six words of a thousand."""
    return " ".join(f"w{n * (place + 7) % 997}" for place in range(2 + n % 5))


def embed(folder):
    with Meter() as meter:
        from pixelrec_train.commands.embed_items import main

        main([
            "--encoder_model_dir", f"{folder}/towers/item_llm", "--text_data", f"{folder}/items.csv",
            "--text_keys", "title", "--cache_dir", f"{folder}/cache", "--overwrite",
        ])  # fmt: skip
    return meter


@functools.cache
def readings(rows):
    """{"ours", "again", "peer"}: Meter of each reading a CSV of so many rows, in processes of their own."""
    with tempfile.TemporaryDirectory(prefix="pixelrec-benchmark-") as folder:
        small, large = Path(folder, "small.csv"), Path(folder, "large.csv")
        write_interactions(small, min(rows, 100_000))
        check_equal(small, folder + "/small")
        write_interactions(large, rows)
        return {
            "ours": in_a_process(read_ours, large, folder),
            "again": in_a_process(read_ours, large, folder),
            "peer": in_a_process(read_peer, large),
        }


def write_interactions(path, rows):
    """Users and items power-law popular, ids as PixelRec has them, rows in the order of time."""
    rng = np.random.default_rng(0)
    users, items = popular(rng, rows, rows // ROWS_PER_USER), popular(rng, rows, rows // ROWS_PER_ITEM)
    times = 1_600_000_000 + np.sort(rng.integers(0, 50_000_000, rows))
    with open(path, "w") as file:
        file.write("item_id,user_id,timestamp\n")
        for block in np.array_split(np.arange(rows), max(rows // 100_000, 1)):
            columns = (column[block].tolist() for column in (items, users, times))
            file.writelines(f"i{item},u{user},{time}\n" for item, user, time in zip(*columns, strict=True))


def popular(rng, rows, count):
    """[rows] numbers below count, number n about n ** -0.5 times as often as the first."""
    return rng.permutation(count)[(count * rng.random(rows) ** 2).astype(np.int64)]


def read_ours(path, folder):
    with Meter() as meter:
        interactions.read([path], TableFlags(cache_dir=str(folder)))
    return meter


def read_peer(path):
    with Meter() as meter:
        peers.read_interactions(path)
    return meter


def check_equal(path, folder):
    ours, theirs = interactions.read([path], TableFlags(cache_dir=str(folder))), peers.read_interactions(path)
    must_agree("items of all users, end to end", ours.items, np.concatenate(theirs.to_list()), 0)
    must_agree("lengths of histories", np.diff(ours.offsets), theirs.str.len(), 0)
