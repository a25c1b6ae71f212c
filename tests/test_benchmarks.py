"""benchmarks/run.py: ours and the peers' ways agree, and its numbers come as promised. No time is judged."""

import json
import mmap
import sys

import forks
import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks import bare, gpu, inputs, run  # noqa: E402
from benchmarks.measure import Meter, in_a_process, interleaved, must_agree  # noqa: E402
from benchmarks.registry import BENCHMARKS, Goal, Result  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def forked():
    """Processes that are measured are forks: at these sizes no figure means anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(forks.folder() / "python"))
        yield


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Every benchmark that has a tiny size; each asserts itself that both ways agree."""
    file = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(interleaved.__kwdefaults__, "rounds", 1)  # nobody reads these times
        assert run.main(["--tiny", "--json", str(file)]) == 0
    return json.loads(file.read_text())


def test_all_benchmarks_run_and_their_json_has_the_promised_keys(tiny_run):
    assert list(tiny_run) == [name for name, found in BENCHMARKS.items() if found.tiny]
    for name, row in tiny_run.items():
        assert {"value", "baseline", "ratio", "unit", "passed"} <= set(row), name
        assert ("at_least" in row) != ("at_most" in row), name
        assert row["value"] > 0 and isinstance(row["passed"], bool), name
    for name in ("exactness", "items_encoded", "imbalance", "token_efficiency"):  # no matter of time
        assert tiny_run[name]["passed"], tiny_run[name]


@pytest.mark.parametrize("names", [["catalog"], ["--tiny", "first_step"]])
def test_an_unknown_name_is_one_sentence_and_exit_code_2(names, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(names)
    printed = capsys.readouterr()
    assert printed.err.startswith("error: there is no ") and printed.err.count("\n") == 1
    assert "catalogue" in printed.err and not printed.out


def test_ways_that_differ_are_not_timed():
    must_agree("rows", [1.0, 2.0], [1.0, 2.0 + 1e-6], 1e-5)
    for other in ([1.0, 2.1], [1.0], [1.0, np.nan]):
        with pytest.raises(AssertionError, match="rows: ours and the peer's differ"):
            must_agree("rows", [1.0, 2.0], other, 1e-5)


def test_a_goal_is_met_on_the_good_side_of_its_limit():
    assert Goal("ratio", at_least=5).is_met(Result(1, 6, ratio=6))
    assert not Goal("ratio", at_least=5).is_met(Result(1, 4, ratio=4))
    assert Goal("value", at_most=5).is_met(Result(5)) and not Goal("value", at_most=5).is_met(Result(6))


def test_memory_is_the_peak_of_the_block_alone():
    for size in (200_000_000, 1000, 200_000_000):  # a later block starts afresh
        with Meter() as meter:  # of pages from the system: another test may have let malloc keep its own
            np.frombuffer(mmap.mmap(-1, size), np.uint8).fill(1)
        assert size / 1e9 <= meter.growth_gb + 0.01 and meter.growth_gb < size / 1e9 + 0.05
    assert in_a_process(np.arange, 3).tolist() == [0, 1, 2]


def test_drawn_inputs_are_as_long_as_the_real_ones():
    given = inputs.shipped()
    lengths = given.item_text(4344).lengths
    assert lengths.mean() == pytest.approx(148.4, abs=0.5) and lengths.max() == 257
    histories = given.histories(2000, 4344)
    assert np.mean([len(history) for history in histories]) == pytest.approx(7.0, abs=0.2)
    assert all(len(set(history.tolist())) == len(history) for history in histories)
    words = [len(text.split()) for text in given.texts(500)]
    assert np.mean(words) == pytest.approx(np.mean(given.item_words), rel=0.02)


TINY_GPU = ("--shape", "tiny", "--windows", "2", "--sizes", "2", "--steps", "1")


def test_the_gpu_script_runs_in_shape_on_a_cpu_and_its_ways_agree(capsys):
    gpu.main(TINY_GPU)
    printed = capsys.readouterr().out
    rows = printed.partition("for RESULTS.md:\n")[2].splitlines()[2:]
    assert [row.split("`")[1].removeprefix("gpu_") for row in rows] == [
        "mfu_step", "step_vs_hllm", "step_vs_padded", "step_vs_padded_head", "mfu_item_tower",
        "mfu_user_tower", "step_2_nothing", "step_2_layers", "step_2_chunks", "decoding_5",
        "decoding_vs_generate", "ranking_exact_64", "ranking_faiss_64",
    ]  # fmt: skip
    assert all(row.count("|") == 8 and " CPU: " in row for row in rows)
    assert "variable length: it wants a GPU" in printed and "nan" not in printed


def test_a_part_of_the_gpu_script_that_fails_loses_nothing_of_the_others(capsys, monkeypatch):
    parts = ("--parts", "towers", "ranking", "decoding")
    monkeypatch.setitem(gpu.PARTS, "decoding", (None, 0.0))  # seconds
    with pytest.raises(SystemExit, match="^error: 2 of 3 parts failed: towers, decoding."):
        gpu.main([*TINY_GPU, *parts, "--windows", "0"])
    rows, _, failures = (
        capsys.readouterr().out.partition("for RESULTS.md:")[2].partition("towers: ended with 1")
    )
    assert "gpu_ranking_exact_64" in rows and "Traceback" in failures
    assert "decoding: took more than its 0.0 s; what it printed before stands" in failures


def test_what_reads_tables_may_be_absent_where_nothing_is_read(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    monkeypatch.setattr(bare, "NOT_NEEDED", ("sys", "no_such_tables"))
    bare.without_tables()
    from no_such_tables import Frame
    from no_such_tables.inner import read

    with pytest.raises(Exception, match="^no_such_tables is not installed, and Frame of it is wanted$"):
        Frame({"a": 1})
    assert read.__module__ == "no_such_tables.inner" and sys.meta_path[-1].names == {"no_such_tables"}
