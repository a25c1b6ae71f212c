"""From Parquet files of chats to a store of tokens, once; and that store opened again, when it is large."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import peers
from benchmarks.measure import Meter, cores, in_a_process, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.data.cache import beside
from pixelrec_train.data.samples.files import Source
from pixelrec_train.data.samples.known_files import KnownFile, known_files, remember
from pixelrec_train.data.samples.rows import samples
from pixelrec_train.data.tokens.shards import MOST_ROWS, TOKENS
from pixelrec_train.data.tokens.token_store import TokenStore
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.tiny import teach_to_chat, train_tokenizer

WORDS_IN_VOCABULARY = 30_000
ROWS_PER_FILE = 1_000  # as OpenOneRec writes them


@benchmark(unit="tokens/CPU s", goal=Goal("value", at_least=400_000), tiny={"chats": 60, "trained_on": 200})
def sample_store(inputs, chats=20_000, trained_on=4_000):
    """Chats of some 300 tokens, rendered, labelled, stored by all cores; peer: so much every epoch."""
    with tempfile.TemporaryDirectory(prefix="pixelrec-benchmark-") as folder:
        files, tokenizer_dir = write_chats(Path(folder), inputs, chats, trained_on)
        tokenizer = load_tokenizer(tokenizer_dir)
        with Meter() as ours:
            store = TokenStore.open_or_build([Source(tuple(files))], tokenizer, tokenizer_dir, folder)
        with Meter() as theirs:
            read = [pair for file in files for pair in peer_reads(file, tokenizer)]
        stored = [store.tokens(i) for i in range(store.num_samples)]
    for part, what in enumerate(("tokens", "labels")):
        laid = (np.concatenate([pair[part] for pair in way]).astype(int) for way in (stored, read))
        must_agree(what, *laid, 0)
    tokens = int(store.lengths.sum(dtype=np.int64))
    speed = f"{tokens / ours.wall:,.0f} tokens/s on {cores()} cores"
    note = f"{chats:,} chats of {tokens / chats:.0f} tokens; {speed}"
    return Result(tokens / ours.cpu, tokens / theirs.cpu, theirs.cpu / ours.cpu, ours.wall, theirs.wall, note)


def write_chats(folder, inputs, chats, trained_on):
    """([Parquet files], tokenizer directory)"""
    texts = inputs.texts(max(2 * chats, trained_on))
    tokenizer = train_tokenizer(texts[:trained_on], WORDS_IN_VOCABULARY)
    teach_to_chat(tokenizer)
    tokenizer.save_pretrained(folder / "tokenizer")
    rows = [
        {"uuid": str(n), "source": "made", "messages": json.dumps(
            [{"role": "system", "content": "You recommend what comes next."},
             {"role": "user", "content": texts[2 * n]}, {"role": "assistant", "content": texts[2 * n + 1]}]
        )}
        for n in range(chats)
    ]  # fmt: skip
    files = []
    for first in range(0, chats, ROWS_PER_FILE):
        files.append(folder / f"part-{first // ROWS_PER_FILE:05d}.parquet")
        pq.write_table(pa.Table.from_pylist(rows[first : first + ROWS_PER_FILE]), files[-1])
    return files, folder / "tokenizer"


def peer_reads(file, tokenizer):
    """[(ids, is_label)] of a file's chats, one after the other."""
    return [peers.chat_tokens(tokenizer, sample.messages) for _, sample in samples(file, 0)]


@benchmark(unit="wall s", goal=Goal("value", at_most=10), tiny={"rows": 40_000})
def open_10m_samples(inputs, rows=10_000_000):
    """A store of so many samples in 10,000 files, opened by a new process, and a thousand samples read."""
    with tempfile.TemporaryDirectory(prefix="pixelrec-benchmark-") as folder:
        write_store(Path(folder), rows)
        opened = in_a_process(open_store, folder, rows)
    return Result(opened.wall, note=f"{rows:,} rows; the process grew by {opened.growth_gb:.2f} GB")


def write_store(folder, rows, tokens_per_row=300):
    """What build() leaves of so many rows; the tokens themselves are holes in their files."""
    known = {}
    for number in range(-(-rows // ROWS_PER_FILE)):
        path = folder / f"part-{number:05d}.parquet"
        path.touch()
        known[str(path.resolve())] = KnownFile(0, path.stat().st_mtime_ns, f"{number:032x}", [ROWS_PER_FILE])
    remember(folder / "sample_files.json", known)
    counts = [min(MOST_ROWS, rows - first) for first in range(0, rows, MOST_ROWS)]
    for number, count in enumerate(counts):
        (folder / f"samples-made/{number:06d}").mkdir(parents=True)
        with open(folder / f"samples-made/{number:06d}" / TOKENS, "wb") as file:
            file.truncate(4 * count * tokens_per_row)
    with beside(folder / "samples-made/index") as (index, facts):
        place = np.arange(rows) % MOST_ROWS
        np.save(index / "starts.npy", place * tokens_per_row)
        for name, value in (("lengths", tokens_per_row), ("num_labels", 90), ("source", 0)):
            np.save(index / f"{name}.npy", np.full(rows, value, np.int32))
        facts |= {"sources": ["made"], "remarks": [], "shard_rows": counts}
        facts["shard_tokens"] = [count * tokens_per_row for count in counts]


def open_store(folder, rows):
    paths = sorted(Path(folder).glob("*.parquet"))
    with Meter() as meter:
        known_files(paths, folder)
        store = TokenStore(Path(folder) / "samples-made", [(0, rows)])
        for i in np.random.default_rng(0).integers(0, rows, 1000).tolist():
            store.tokens(i)
    return meter
