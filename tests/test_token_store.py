"""Samples tokenised once: equal to tokenising each alone, shared by processes, going on after a kill."""

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch.distributed as dist
from conftest import ROOT

from pixelrec_train.data.samples.files import Source
from pixelrec_train.data.samples.known_files import NAME, known_files
from pixelrec_train.data.samples.rows import samples
from pixelrec_train.data.tokens import shards, sharing, token_store
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.data.tokens.shards import Piece, plan
from pixelrec_train.data.tokens.token_store import TokenStore
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.run import resources

TOKENIZER = ROOT / "tests/fixtures/openonerec/tokenizer"
COLUMNS = pa.schema([(name, pa.string()) for name in ("uuid", "source", "messages", "segments")])
WORDS = "视频 travel music then user 看过 liked".split()


def row(number, **changes):
    words = [WORDS[(number * k) % len(WORDS)] for k in range(1, 3 + number % 11)]
    if number % 4 == 3:
        content = {"segments": json.dumps([{"type": "text", "text": " ".join(words)}])}
    else:
        messages = [{"role": "user", "content": words[0]}, {"role": "assistant", "content": " ".join(words)}]
        content = {"messages": json.dumps(messages[: 1 + number % 4])}  # a third without an answer
    return {"uuid": str(number), "source": "xyz"[number % 3]} | content | changes


def write(path, rows, row_group_size=7):
    table = pa.Table.from_pylist([dict.fromkeys(COLUMNS.names) | row for row in rows], schema=COLUMNS)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@pytest.fixture
def files(tmp_path):
    """Three files of 20, 1 and 9 rows, in row groups of 7 and fewer."""
    counts = iter(range(30))
    return [
        write(tmp_path / f"{name}.parquet", [row(next(counts)) for _ in range(size)])
        for name, size in (("b", 20), ("a", 1), ("c", 9))
    ]


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setattr(resources, "cores", lambda: 1)


def build(files, cache, rows_per_shard=4, **settings):
    sources = [file if isinstance(file, Source) else Source((file,)) for file in files]
    tokenizer = load_tokenizer(TOKENIZER)
    return TokenStore.open_or_build(
        sources, tokenizer, TOKENIZER, cache, rows_per_shard=rows_per_shard, **settings
    )


def alone(files, **settings):
    """The slow way: [(sample, ids, is_label)], each sample tokenised by itself."""
    renderer = Renderer(load_tokenizer(TOKENIZER), **settings)
    found = []
    for file in files:
        for group in range(pq.ParquetFile(file).num_row_groups):
            for _, sample in samples(file, group):
                found.append((sample, *renderer.encode([sample])[0]))
    return found


def content(store):
    """{file: bytes} of a store."""
    return {
        str(path.relative_to(store.directory)): path.read_bytes()
        for path in sorted(store.directory.rglob("*"))
        if path.is_file() and path.name != "locks"
    }


@pytest.mark.parametrize("rows_per_shard", [1, 4, 100, None])
@pytest.mark.parametrize("think", [False, True])
def test_every_row_of_every_row_group_is_there_as_if_tokenised_alone(files, tmp_path, rows_per_shard, think):
    sources = [Source((files[0],)), Source((files[1], files[2]), epochs=2)]
    store = build(sources, tmp_path / "cache", rows_per_shard, add_think_pattern=think)
    slow = alone(files, add_think_pattern=think)
    assert store.num_samples == len(slow) == 30
    for i, (sample, ids, is_label) in enumerate(slow):
        ours, ours_label = store.tokens(i)
        assert ours.tolist() == ids.tolist() and ours_label.tolist() == is_label.tolist()
        assert (ours.dtype, ours_label.dtype) == (np.int32, bool)
        assert store.lengths[i] == len(ids) and store.num_labels[i] == is_label.sum()
        assert store.sources[store.source[i]] == sample.source
    assert store.entry_bounds == [(0, 20), (20, 30)]
    assert 0 < (store.num_labels == 0).sum() < 30


def test_a_store_that_is_there_is_opened_without_reading_the_samples(files, tmp_path, monkeypatch):
    before = build(files, tmp_path / "cache")

    def refuse(*arguments, **settings):
        raise AssertionError("read again")

    monkeypatch.setattr(sharing, "write_shard", refuse)
    monkeypatch.setattr("pixelrec_train.data.samples.known_files.row_counts", refuse)
    again = build(files, tmp_path / "cache")
    assert again.directory == before.directory and np.array_equal(again.lengths, before.lengths)
    # How often a file is read is no matter of tokens; nor is where it lies.
    weighted = [Source((file,), weight=2.0) for file in files]
    assert build(weighted, tmp_path / "cache").directory == before.directory


def test_what_changes_tokens_or_labels_is_another_store(files, tmp_path):
    cache = tmp_path / "cache"
    stores = [build(files, cache), build(files, cache, add_think_pattern=True)]
    stores += [build(files, cache, only_assistant_loss=False)]
    stores += [build(files[:2], cache), build(files[::-1], cache)]
    tokenizer = load_tokenizer(TOKENIZER)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", " <|im_end|>")
    sources = [Source((file,)) for file in files]
    stores.append(TokenStore.open_or_build(sources, tokenizer, TOKENIZER, cache, rows_per_shard=4))
    write(files[1], [row(77)])
    stores.append(build(files, cache))
    assert len({store.fingerprint for store in stores}) == len(stores) == 7
    assert stores[-1].tokens(20)[0].tolist() == alone(files)[20][1].tolist()


def in_processes(count, function, *arguments):
    """function(*arguments, number) in processes of their own; [what each returned, or its exit code]."""
    context = multiprocessing.get_context("fork")
    answers = [context.SimpleQueue() for _ in range(count)]

    def run(number):
        answers[number].put(function(*arguments, number))

    processes = [context.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [
        answer.get() if process.exitcode == 0 else process.exitcode
        for process, answer in zip(processes, answers, strict=True)
    ]


def noting(folder, pause=0.0, most=None):
    """write_shard that notes who has made what, takes its time, and is killed after `most` shards."""

    def write_shard(directory, *arguments):
        (folder / f"{os.getpid()}-{directory.name}-{time.monotonic_ns()}").touch()
        time.sleep(pause)
        shards.write_shard(directory, *arguments)
        if most and len(list(folder.iterdir())) == most:
            os.kill(os.getpid(), signal.SIGKILL)

    return write_shard


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def makers(notes):
    """{shard: how often made}, {process: shards made}"""
    told = [path.name.split("-") for path in notes.iterdir()]
    return Counter(shard for _, shard, _ in told), Counter(process for process, _, _ in told)


def test_a_build_that_was_killed_goes_on_and_ends_in_the_same_bytes(files, tmp_path, notes, monkeypatch):
    monkeypatch.setattr(sharing, "write_shard", noting(notes, most=3))
    assert in_processes(1, lambda _: build(files, tmp_path / "cache")) == [-signal.SIGKILL]
    (begun,) = (tmp_path / "cache").glob("samples-*")
    assert sorted(path.name for path in begun.iterdir()) == ["000000", "000001", "000002", "locks"]
    (begun / "000003.elsewhere.1.partial").mkdir()  # of a machine that went down
    monkeypatch.setattr(sharing, "write_shard", noting(notes))
    store = build(files, tmp_path / "cache")
    assert makers(notes)[0] == {f"{n:06d}": 1 for n in range(8)}
    assert content(store) == content(build(files, tmp_path / "other"))


def test_helpers_end_with_a_parent_that_was_killed(files, tmp_path, notes, monkeypatch):
    monkeypatch.setattr(resources, "cores", lambda: 2)
    plain = noting(notes, pause=0.05)

    def run(_):
        mine = os.getpid()

        def write_shard(directory, *arguments):
            plain(directory, *arguments)
            if os.getpid() == mine and len(makers(notes)[1]) == 2:  # the helper has begun
                os.kill(mine, signal.SIGKILL)

        monkeypatch.setattr(sharing, "write_shard", write_shard)
        build(files, tmp_path / "cache", rows_per_shard=1)

    assert in_processes(1, run) == [-signal.SIGKILL]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{process}").exists() for process in makers(notes)[1]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(makers(notes)[0]) < 30  # it has not gone on to the end
    assert build(files, tmp_path / "cache", rows_per_shard=1).num_samples == 30


def test_processes_share_the_work_and_none_does_what_another_has_done(files, tmp_path, notes, monkeypatch):
    # So long a pause that a helper comes before the work is done, on a busy machine, too.
    monkeypatch.setattr(sharing, "write_shard", noting(notes, pause=0.2))
    monkeypatch.setattr(resources, "cores", lambda: 2)  # two runs with a helper each
    found = in_processes(2, lambda _: build(files, tmp_path / "cache").num_samples)
    assert found == [30, 30]
    by_shard, by_process = makers(notes)
    assert by_shard == {f"{n:06d}": 1 for n in range(8)}
    assert len(by_process) >= 3
    store = build(files, tmp_path / "cache")
    monkeypatch.setattr(resources, "cores", lambda: 1)
    assert content(store) == content(build(files, tmp_path / "other"))


def as_rank(meeting, function, ranks):
    """function() as one of several ranks; what it raises as a text."""

    def run(rank):
        os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks))
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
        try:
            return function()
        except InputError as error:
            return f"error: {error}"
        finally:
            dist.destroy_process_group()

    return in_processes(ranks, run)


def test_ranks_share_the_work_and_open_the_same_store(files, tmp_path, notes, monkeypatch):
    monkeypatch.setattr(sharing, "write_shard", noting(notes, pause=0.05))

    def total():
        return int(build(files, tmp_path / "cache").lengths.sum())

    found = as_rank(tmp_path / "meeting", total, 2)
    assert found == [sum(len(ids) for _, ids, _ in alone(files))] * 2
    by_shard, by_process = makers(notes)
    assert by_shard == {f"{n:06d}": 1 for n in range(8)} and len(by_process) == 2


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(messages="[{]"), "messages is not JSON"),
        (dict(source=""), "source is empty"),
        (dict(messages=None, segments=None), "it has neither messages nor segments"),
    ],
    ids=["json", "source", "empty"],
)
def test_a_bad_row_is_named_on_all_ranks_and_nobody_waits(files, tmp_path, notes, monkeypatch, changes, said):
    monkeypatch.setattr(sharing, "write_shard", noting(notes, pause=0.02))
    write(files[2], [row(n) for n in range(5)] + [row(5, **changes)] + [row(n) for n in range(60)])
    found = as_rank(tmp_path / "meeting", lambda: build(files, tmp_path / "cache"), 2)
    assert found[0] == found[1]
    assert found[0].startswith(f"error: {files[2]} row 6: {said}")
    assert found[0].endswith("scripts/check_samples.py FILES lists everything that is wrong.")
    assert not list((tmp_path / "cache").glob("samples-*/failed-*"))


def test_a_failure_of_a_helper_is_the_failure_of_the_run(files, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "cores", lambda: 2)
    mine = os.getpid()

    def write_shard(directory, *arguments):
        if os.getpid() != mine:
            raise InputError("the helper's")
        time.sleep(0.05)
        arguments[-1]()  # what is called between blocks
        shards.write_shard(directory, *arguments)

    monkeypatch.setattr(sharing, "write_shard", write_shard)
    with pytest.raises(InputError, match="^the helper's$"):
        build(files, tmp_path / "cache", rows_per_shard=1)
    assert not multiprocessing.active_children()


def test_a_template_that_refuses_a_chat_is_named_with_file_and_row(files, tmp_path):
    tokenizer = load_tokenizer(TOKENIZER)
    tokenizer.chat_template = "{{ raise_exception('No chats.') }}"
    with pytest.raises(InputError, match=r"b\.parquet row 1, sample 0: its chat template refuses.*No chats"):
        TokenStore.open_or_build([Source(tuple(files))], tokenizer, TOKENIZER, tmp_path / "cache")


def test_a_damaged_store_is_a_sentence(files, tmp_path):
    directory = build(files, tmp_path / "cache").directory
    tokens = directory / "000002/tokens.bin"
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-3])
    said = rf"000002/tokens.bin is damaged: it has {len(whole) - 3:,} bytes in place of {len(whole):,}\."
    with pytest.raises(InputError, match=said):
        build(files, tmp_path / "cache")
    tokens.unlink()
    with pytest.raises(InputError, match="tokens.bin is damaged: it is missing. Delete .*; it is made again"):
        build(files, tmp_path / "cache")
    (directory / "index/facts.json").write_text("{")
    with pytest.raises(InputError, match="index is damaged: .* Delete it; it is made again"):
        build(files, tmp_path / "cache")


def test_a_shard_damaged_before_the_index_is_made_is_a_sentence(files, tmp_path, monkeypatch):
    def write_shard(directory, *arguments):
        shards.write_shard(directory, *arguments)
        (directory / "tokens.bin").write_bytes(b"")

    monkeypatch.setattr(sharing, "write_shard", write_shard)
    with pytest.raises(InputError, match="000000/tokens.bin is damaged: it has 0 bytes in place of"):
        build(files, tmp_path / "cache")


def test_what_cannot_be_written_or_is_empty_is_a_sentence(files, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        build(files, tmp_path / "taken")
    empty = write(tmp_path / "empty.parquet", [])
    with pytest.raises(InputError, match=r"there is no row in .*empty\.parquet\. Name files with samples"):
        build([empty], tmp_path / "cache")

    def lockf(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(sharing.fcntl, "lockf", lockf)
    with pytest.raises(InputError, match="cannot be locked: .*No locks available. Choose a --cache_dir"):
        build(files, tmp_path / "cache")


def test_parts_that_are_no_text_are_counted_by_source(tmp_path):
    odd = json.dumps([{"type": "text", "text": "a"}, {"type": "image", "image": "x"}])
    rows = [row(3, source="s", segments=odd), row(0), row(7, source="s", segments=odd)]
    path = write(tmp_path / "odd.parquet", rows)
    store = build([path], tmp_path / "cache", rows_per_shard=2)
    assert dict(store.remarks) == {
        ("s", "parts that are no text, left out"): [
            2, f'{path} row 1 (segment 2: {{"type": "image", "image": "x"}})',
        ]
    }  # fmt: skip


def test_progress_is_a_line_now_and_then_with_time_left(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sharing, "TOLD_EVERY", 0.0)
    ticks = iter(range(10_000))
    monkeypatch.setattr(sharing.time, "monotonic", lambda: float(next(ticks)))
    build(files, tmp_path / "cache")
    lines = capsys.readouterr().out.splitlines()
    assert " note | tokenise: 4 of 30 samples, " in lines[0] and lines[0].endswith("s left")
    assert len(lines) >= 7


def test_a_plan_takes_every_row_once_in_order_and_cuts_large_groups():
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows_of_files = [rng.integers(0, 30, rng.integers(0, 4)).tolist() for _ in range(rng.integers(0, 5))]
        most = int(rng.integers(1, 20))
        found = plan(rows_of_files, most)
        rows = [(p.file, p.group, r) for pieces in found for p in pieces for r in range(p.first, p.stop)]
        assert rows == [
            (f, g, r)
            for f, groups in enumerate(rows_of_files)
            for g, n in enumerate(groups)
            for r in range(n)
        ]
        assert all(shards.rows_of(pieces) == most for pieces in found[:-1])
    assert len(plan([[10_000_000]])) == -(-10_000_000 // shards.MOST_ROWS)
    assert plan([[700, 700]]) == [[Piece(0, 0, 0, 700), Piece(0, 1, 0, 324)], [Piece(0, 1, 324, 700)]]


def test_rows_of_a_group_are_those_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelrec_train.data.samples.rows.MOST_ROWS", 3)
    path = write(tmp_path / "x.parquet", [row(n) for n in range(20)], row_group_size=11)
    for group, size in ((0, 11), (1, 9)):
        whole = list(samples(path, group))
        for first in range(size):
            for stop in range(first + 1, size + 1):
                assert list(samples(path, group, None, first, stop)) == whole[first:stop]


def test_a_file_is_read_again_only_where_it_has_changed(files, tmp_path, monkeypatch):
    first = known_files(files, tmp_path)
    assert [known.rows for known in first] == [[7, 7, 6], [1], [7, 2]]
    read = []
    real = pq.ParquetFile
    monkeypatch.setattr(
        "pyarrow.parquet.ParquetFile", lambda path, **settings: read.append(path) or real(path, **settings)
    )
    assert known_files(files, tmp_path) == first and not read
    write(files[1], [row(5), row(6)])
    changed = known_files(files, tmp_path)
    assert [Path(path) for path in read] == [files[1]] and changed[1].rows == [2]
    assert changed[::2] == first[::2] and changed[1].digest != first[1].digest
    (tmp_path / NAME).write_text("damaged")
    assert known_files(files, tmp_path) == changed


def test_few_maps_are_open_at_a_time(files, tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "MOST_OPEN", 2)
    store, slow = build(files, tmp_path / "cache"), alone(files)
    for i in np.random.default_rng(0).integers(0, 30, 200).tolist():
        assert store.tokens(i)[0].tolist() == slow[i][1].tolist()
        assert len(store.maps) <= 2
