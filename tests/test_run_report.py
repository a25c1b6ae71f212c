"""report.html and comparisons of runs: they say what the run's files say, escaped, whole and alone."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import as_flags, inputs_of

from pixelrec_train.commands import compare
from pixelrec_train.commands import report as command
from pixelrec_train.data.user_places import UserPlaces, read_places, write_places
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.metrics import figures, groups, paired_intervals, paired_p, table_row
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import Popularity
from pixelrec_train.files import write_json
from pixelrec_train.report import end, evidence
from pixelrec_train.report.between import compare_runs
from pixelrec_train.report.charts import short, ticks_of
from pixelrec_train.report.embedding_map import embedding_map, gauges
from pixelrec_train.report.markup import VOID, h
from pixelrec_train.report.page import write_report

EVIL = "<script>alert('x')</script>\"&<img src=http://evil.example/x.png>"
SECTIONS = ("figures", "curves", "who", "users", "map", "speed", "again")
TOPK = (5, 10, 50)


def user_places(places, **changes):
    """UserPlaces of so many users, the first two with a cold target."""
    numbers = np.arange(len(places))
    users, targets = (np.array([f"{letter}{n:03d}" for n in numbers], object) for letter in "ui")
    found = UserPlaces(
        users, targets, 1 + numbers % 7, np.where(numbers < 2, 0, numbers), numbers < 2,
        {"popularity": np.full(len(places), 50), "two_tower": np.array(places)}, "two_tower", "test",
        "by hand", 80, list(TOPK), False,
    )  # fmt: skip
    return found._replace(**changes)


def write_run(run, found, name="two_tower", **told):
    """A finished run, as small as it can be, whose texts mean harm."""
    run.mkdir(parents=True)
    rows = {model: table_row(places, found.cold, TOPK) for model, places in found.places.items()}
    record = {
        "config": {"seed": 42, "item_prompt": EVIL}, "command": ["train_pixelrec", "--item_prompt", EVIL],
        "commit": "abc1234+changes", "ranks": 2, "versions": {"torch": "2"}, "data": {"interactions": "f00d"},
    }  # fmt: skip
    write_json(run / "run.json", record)
    write_json(run / "table.json", rows)
    (run / "table.md").write_text(f"| table |\n\nTest split ({EVIL}).\n")
    events = [
        {
            "kind": "step",
            "step": 10,
            "loss": 4.5,
            "lr": 1e-3,
            "users_per_s": 20.0,
            "step_ms": 50.0,
            "eta_s": 2,
        },
        {"kind": "eval", "step": 20, "valid_loss": 4.0, "recall@10": 0.1},
        {
            "kind": "step",
            "step": 30,
            "loss": 3.5,
            "lr": 5e-4,
            "users_per_s": 40.0,
            "step_ms": 40.0,
            "eta_s": 0,
        },
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (run / "best_model").mkdir()
    write_json(run / "best_model/train_state.json", {"step": 20})
    write_places(run, found)
    item = ["i1", EVIL]
    one = {
        "user": EVIL, "taken": 9, "history": [item], "target": item, "place": 1, "listed": 50,
        "list": [["i2", None, 0.5], [*item, 0.4]],
    }  # fmt: skip
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    shown = embedding_map(vectors) | {"id": list("abcd"), "text": [EVIL] * 4, "taken": [0, 1, 2, 9]}
    shown |= {"column": EVIL, "kinds": [EVIL, "b"], "kind": [0, 0, 1, -1]}
    told = {"model": name, "seed": 0, "dimensions": 3, "examples": [one], "map": shown} | told
    write_json(run / evidence.FILE, told | {"gauges": gauges(vectors)})
    return rows


@pytest.fixture
def run(tmp_path):
    """(directory, its table) of a run of 60 users."""
    places = np.random.default_rng(1).integers(0, 51, 60)
    return tmp_path / "run", write_run(tmp_path / "run", user_places(places))


class Page(HTMLParser):
    """Checks that every tag is closed in order; keeps tags, and the text of each section."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.resources = [], [], {}, []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        assert len(attributes) == len(dict(attributes)), (tag, attributes)
        self.resources += [v for n, v in attributes if n in ("src", "href", "action", "data", "xlink:href")]
        if tag not in VOID:
            self.open.append((tag, dict(attributes).get("id")))

    def handle_startendtag(self, tag, attributes):
        raise AssertionError(f"<{tag}/> is no HTML")

    def handle_endtag(self, tag):
        name, _ = self.open.pop()
        assert name == tag, f"</{tag}> closes <{name}>"

    def handle_data(self, text):
        for part in {name for _, name in self.open if name} | {"all"}:
            self.texts[part] = self.texts.get(part, "") + text


def checked(path):
    """The Page of a file that asks nobody for anything and holds no markup from data."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    assert all(url.startswith("#") for url in page.resources), page.resources
    assert not re.search(r"url\(|@import|\son\w+=|javascript:", re.sub(re.escape(h("i", EVIL)), "", text))
    viewport = [a for tag, a in page.tags if a.get("name") == "viewport"]
    assert viewport and "width=device-width" in viewport[0]["content"]
    assert "prefers-color-scheme:dark" in text
    return page


def test_every_part_is_there_well_formed_escaped_and_alone(run):
    page = checked(write_report(run[0], "run"))
    assert [a["id"] for tag, a in page.tags if tag == "section"] == list(SECTIONS)
    assert {url[1:] for url in page.resources} == set(SECTIONS)
    for part in ("users", "map", "again"):
        assert EVIL in page.texts[part]
    assert "git checkout abc1234  # and changes that are in no commit" in page.texts["again"]
    assert (
        "deepspeed --num_gpus 2 scripts/train_pixelrec.py \\\n  --item_prompt '<script>"
        in page.texts["again"]
    )
    assert "f00d" in page.texts["again"] and "target at place 2" in page.texts["users"]
    assert "best_model" in page.texts["curves"] and "left no" not in page.texts["all"]
    circles = [a for tag, a in page.tags if tag == "circle" and "t" in a.get("class", "")[:9]]
    assert len([a for a in circles if re.fullmatch(r"(k\d|others) t\d", a["class"])]) == 4


def test_its_numbers_are_those_of_the_table(run):
    directory, rows = run
    page = checked(write_report(directory, "run"))
    numbers = page.texts["figures"]
    for row in rows.values():
        for name in metrics.gains(TOPK):
            for metric in (name, f"cold_{name}"):
                low, high = row[f"{metric}_ci95"]
                assert f"{100 * row[metric]:.2f} ± {50 * (high - low):.2f}" in numbers
                assert f"{100 * row[metric]:.2f} %, 95 % in [{100 * low:.2f}, {100 * high:.2f}]" in numbers
    assert f"{100 * rows['two_tower']['recall@10']:.2f} %" in page.texts["all"].split("Figures")[0]
    # 10 steps of 50 ms and 20 of 40, as the log's lines are means; the first foresaw 2.5 s.
    assert "1s" in page.texts["speed"] and "foresaw 2s" in page.texts["speed"]


def test_groups_hold_every_user_once_and_equals_together():
    rng = np.random.default_rng(0)
    for values in (rng.poisson(3, 500), rng.poisson(40, 500), np.zeros(9, int), np.full(5, 7)):
        found = groups(values, 10)
        assert sum(inside.astype(int) for _, _, inside in found).tolist() == [1] * len(values)
        assert len(found) <= 10 + (values == 0).any()
        edges = [edge for low, high, inside in found for edge in (low, high)]
        assert edges == sorted(edges) and all(a < b for a, b in zip(edges[1::2], edges[2::2], strict=False))
        assert not (values == 0).any() or found[0][:2] == (0, 0)
    assert [int(inside.sum()) for _, _, inside in groups(np.arange(1, 101), 10)] == [10] * 10


def test_recall_of_groups_is_that_of_their_users(run):
    page, found = checked(write_report(run[0], "run")), read_places(run[0] / "places.parquet")
    for values, parts, form in ((found.taken, 10, "{}×"), (found.history, 5, "{} items")):
        for low, high, inside in groups(values, parts):
            recall = 100 * (found.places["two_tower"][inside] < 10).mean()
            label = form.format(low if low == high else f"{low}–{high}") if high else "never"
            assert f"two_tower, {label}: {recall:.2f} %" in page.texts["who"]


def test_an_older_run_says_what_is_missing_and_an_evaluation_brings_it(run):
    directory, _ = run
    (directory / "best_model/eval-test").mkdir()
    for name in ("places.parquet", evidence.FILE):
        shutil.move(directory / name, directory / "best_model/eval-test" / name)
    assert "left no" not in checked(write_report(directory, "run")).texts["all"]
    shutil.rmtree(directory / "best_model")
    record = json.loads((directory / "run.json").read_text())
    del record["command"]
    write_json(directory / "run.json", record)
    (directory / "metrics.jsonl").unlink()
    page = checked(write_report(directory, "run"))
    for part in ("who", "users", "map"):
        assert "This run left no" in page.texts[part] and "evaluate_pixelrec.py" in page.texts[part]
    assert "did not write down its command" in page.texts["again"]
    assert "no metrics.jsonl" in page.texts["curves"] and "logged no step" in page.texts["speed"]
    assert [a["id"] for t, a in page.tags if t == "section"] == list(SECTIONS)


def test_a_run_that_asked_in_prompts_says_so(run):
    write_json(run[0] / evidence.FILE, {"model": "two_tower", "seed": 0})
    page = checked(write_report(run[0], "run"))
    for part in ("users", "map"):
        assert "was asked in prompts" in page.texts[part] and "scripts/predict.py" in page.texts[part]


def test_a_run_that_ranks_nothing_has_losses_and_no_users(run):
    directory, _ = run
    for name in ("places.parquet", evidence.FILE):
        (directory / name).unlink()
    write_json(directory / "table.json", {"training, step 30": {"loss": 3.5, "reward": 0.25}})
    page = checked(write_report(directory, "run"))
    assert [a["id"] for tag, a in page.tags if tag == "section"] == ["figures", "curves", "speed", "again"]
    assert "3.5000" in page.texts["figures"] and "0.2500" in page.texts["figures"]


def test_baselines_of_a_comparison_stand_beside_and_the_strongest_is_marked(run, tmp_path):
    directory, rows = run
    cold = np.zeros(60, bool)
    best, weak = (table_row(np.full(60, place), cold, TOPK) for place in (0, 60))
    mine = rows["two_tower"] | {"checkpoint": f"{directory}/best_model"}
    mine["ndcg@10_against"] = {"baseline": "ease", "change": -0.25, "p": 0.0456}
    both = {"item_knn": weak, "ease": best, "mine": mine}
    (tmp_path / "compared").mkdir()
    write_json(tmp_path / "compared/table.json", both)
    page = checked(write_report(directory, "run", compared=tmp_path / "compared"))
    assert "mine: ndcg@10 -25.0% against ease, p = 0.0456" in page.texts["figures"]
    assert "★ ease" in page.texts["figures"] and "★ item_knn" not in page.texts["figures"]
    rows["two_tower"]["recall@10_against"] = {"baseline": "popularity", "change": 0.5, "p": 0.0123}
    write_json(directory / "table.json", rows)
    text = checked(write_report(directory, "run")).texts["figures"]
    assert "two_tower: recall@10 +50.0% against popularity, p = 0.0123" in text and "★ popularity" in text
    write_json(tmp_path / "compared/table.json", both | {"ease": best | {"users": 59}})
    with pytest.raises(InputError, match="judged other users"):
        write_report(directory, "run", compared=tmp_path / "compared")


def test_the_map_is_what_a_singular_value_decomposition_says_and_gauges_know_a_collapse():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 6)) + [3, 0, 0, 0, 0, 0]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    found = embedding_map(rows)
    np.testing.assert_allclose(np.abs(found["xy"]), np.abs(u[:, :2] * s[:2]), atol=1e-4)
    np.testing.assert_allclose(found["explained"], s[:2] ** 2 / (s**2).sum(), atol=1e-4)
    cosines = unit @ unit.T
    told = gauges(rows)
    assert told["mean_cosine"] == pytest.approx(cosines[~np.eye(50, dtype=bool)].mean())
    shares = np.linalg.svd(unit, compute_uv=False)
    shares /= shares.sum()
    assert told["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    nearest = (cosines - 2 * np.eye(50)).max(1)
    assert told["alike"] == (nearest >= 0.99).mean()
    same = gauges(np.tile(rows[:1], (5, 1)))
    assert same["mean_cosine"] == pytest.approx(1) and same["effective_rank"] == pytest.approx(1, abs=1e-4)
    assert same["alike"] == 1 and len(embedding_map(np.ones((3, 1)))["xy"]) == 3


@pytest.fixture(scope="module")
def leaving(demo_config, tmp_path_factory):
    """What `leave` wrote for popularity on the demo, with embeddings by hand."""
    config, folder = replace(demo_config, topk=(5, 10)), tmp_path_factory.mktemp("left")
    inputs = inputs_of(config)
    test, most_taken = inputs.split.test, Popularity(inputs.split.popularity)
    who = evidence.example_users(test)
    judged = {"popularity": judge(most_taken, test, config, keep_lists=who)}
    count = inputs.interactions.num_items
    vectors = np.random.default_rng(0).normal(size=(count, 4))[evidence.items_on_map(count)]
    evidence.leave(folder, judged, "popularity", inputs, test, config, config, "test", config, vectors)
    return folder, inputs, config, who, most_taken


def test_what_a_run_leaves_is_what_was_judged(leaving):
    folder, inputs, config, who, most_taken = leaving
    test, found = inputs.split.test, read_places(folder / "places.parquet")
    whole = judge(most_taken, test, config, keep_lists=True)
    assert np.array_equal(found.places["popularity"], whole.places)
    user_ids, item_ids = np.array(inputs.interactions.user_ids), np.array(inputs.interactions.item_ids)
    assert found.user_id.tolist() == user_ids[test.users].tolist()
    assert found.target.tolist() == item_ids[test.target].tolist()
    assert found.history.tolist() == [len(test.history(e)) for e in range(len(test))]
    counts = {item: 0 for item in item_ids}
    for item in inputs.split.taken.pairs()[1]:
        counts[item_ids[item]] += 1
    assert found.taken.tolist() == [counts[item] for item in found.target]
    assert found.topk == [5, 10] and found.items == len(item_ids) and not found.keep_seen

    told = json.loads((folder / evidence.FILE).read_text())
    assert len(told["examples"]) == len(who) == 10 and len(set(who.tolist())) == 10
    titles = dict(zip(told["map"]["id"], told["map"]["text"], strict=True))
    for e, one in zip(who.tolist(), told["examples"], strict=True):
        items = whole.lists.items[e]
        assert one["user"] == user_ids[test.users[e]] and one["taken"] == len(test.history(e))
        assert [item[0] for item in one["list"]] == item_ids[items[items >= 0]].tolist()
        assert one["place"] == (int(whole.places[e]) if whole.places[e] < 10 else None)
        assert [item[0] for item in one["history"]] == item_ids[test.history(e)[-8:]].tolist()
        assert all(text == titles[item_id] and text for item_id, text, *_ in one["list"])


def test_colours_are_the_commonest_values_of_the_column_that_repeats_most():
    texts = SimpleNamespace(text_keys=("title", "tag", "rare"))
    fields = [(f"title {n}", "ab"[n % 2] if n < 90 else "", "x" if n < 30 else f"{n}") for n in range(99)] + [
        ()
    ]
    found = evidence.kinds(fields, texts)
    assert found["column"] == "tag" and found["kinds"] == ["a", "b"]
    assert found["kind"] == [n % 2 if n < 90 else -1 for n in range(100)]
    assert evidence.kinds([(f"{n}", f"{n}", "") for n in range(99)], texts) == {}
    assert evidence.kinds([()] * 9, texts) == {}


def test_lists_are_kept_of_whom_they_are_asked(leaving):
    _, inputs, config, _, most_taken = leaving
    test = inputs.split.test
    whole = judge(most_taken, test, config, keep_lists=True)
    some = judge(most_taken, test, replace(config, eval_batch_size=7), keep_lists=np.array([3, 40, 41]))
    assert np.array_equal(some.lists.items, whole.lists.items[[3, 40, 41]])
    assert np.array_equal(some.places, whole.places) and judge(most_taken, test, config).lists is None


def test_a_page_that_cannot_be_made_costs_no_run_and_is_one_line(run):
    directory, _ = run
    said = []
    log = SimpleNamespace(note=said.append, block=said.append)

    def fails():
        raise KeyError("what is not there")

    end.report_at_end(log, directory, fails)
    warning, report = said
    assert warning.startswith("warning: places.parquet and report.json could not be written (KeyError: ")
    assert "\n" not in warning and report == f"Report: {directory}/report.html"
    (directory / "report.html").unlink()
    (directory / "table.json").write_text("{")
    end.report_at_end(log, directory)
    assert len(said) == 3 and said[2].startswith("warning: report.html could not be written (InputError: ")
    assert not list(directory.glob("report.html*"))


def test_places_come_back_as_they_were_written(tmp_path):
    found = user_places([0, 49, 50, 7])
    write_places(tmp_path, found)
    back = read_places(tmp_path / "places.parquet")
    assert back.facts == found.facts and back.places.keys() == found.places.keys()
    for name in ("user_id", "target", "history", "taken", "cold"):
        assert getattr(back, name).tolist() == getattr(found, name).tolist()
    assert back.places["two_tower"].tolist() == [0, 49, 50, 7]


def two_runs(tmp_path, before, after, **changes):
    names = "before", "after"
    for name, places, more in zip(names, (before, after), ({}, changes), strict=True):
        write_run(tmp_path / name, user_places(places, **more))
    return [tmp_path / name for name in names]


def test_deltas_and_p_are_those_of_the_users_themselves(tmp_path):
    rng = np.random.default_rng(0)
    before = rng.integers(0, 51, 200)
    after = np.where(rng.random(200) < 0.3, 0, before)
    (pair,) = compare_runs(two_runs(tmp_path, before, after))
    p, ends, old, new = (
        paired_p(after, before, TOPK), paired_intervals(after, before, TOPK), figures(before, TOPK),
        figures(after, TOPK),
    )  # fmt: skip
    for metric, delta in pair.metrics.items():
        assert delta == (200, old[metric], new[metric], ends[metric], p[metric])
    # The slow way: resample the users themselves.
    difference = (after < 10).astype(float) - (before < 10)
    drawn = difference[rng.integers(0, 200, (4000, 200))].mean(1)
    np.testing.assert_allclose(
        pair.metrics["recall@10"].interval, np.percentile(drawn, (2.5, 97.5)), atol=0.011
    )
    assert pair.metrics["recall@10"].p == pytest.approx(2 * 1e-4)
    assert pair.gained.tolist() == np.flatnonzero((before >= 10) & (after < 10)).tolist()
    assert not len(pair.lost) and pair.hits == ((before < 10) & (after < 10)).sum()
    for parts in pair.slices.values():
        assert sum(delta.users for delta in parts.values()) == 200
    cold = pair.slices["cold targets"]["never seen in training"]
    assert (cold.users, cold.before) == (2, (before[:2] < 10).mean())


def test_the_order_of_users_and_further_cut_offs_do_not_matter(tmp_path):
    places = np.random.default_rng(0).integers(0, 51, 30)
    other = user_places(np.minimum(places + 3, 50))
    order = np.random.default_rng(1).permutation(30)
    of_users = {n: getattr(other, n)[order] for n in ("user_id", "target", "history", "taken", "cold")}
    changed = other._replace(
        **of_users, places={"two_tower": other.places["two_tower"][order]}, topk=[10, 50]
    )
    write_run(tmp_path / "a", user_places(places))
    write_run(tmp_path / "b", other)
    write_run(tmp_path / "c", changed)
    plain, shuffled = compare_runs([tmp_path / name for name in "abc"])
    assert {name for name in plain.metrics if "@5" in name[-3:]} - set(shuffled.metrics) == {
        "recall@5", "ndcg@5", "mrr@5",
    }  # fmt: skip
    assert shuffled.metrics["recall@10"][:3] == plain.metrics["recall@10"][:3]
    assert np.array_equal(shuffled.lost, plain.lost) and len(plain.lost)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"split": "valid"}, "they judged the test and valid split"),
        ({"origin": "by time"}, "hold out another way"),
        ({"items": 81}, "rank 80 and 81 candidates"),
        ({"keep_seen": True}, "have --keep_seen False and True"),
        ({"topk": [3, 50]}, None),
        ({"topk": [51]}, "no cut-off in common"),
    ],
)
def test_runs_by_other_rules_are_refused(changes, says, tmp_path):
    runs = two_runs(tmp_path, [1, 2, 30], [4, 5, 6], **changes)
    if says is None:
        assert set(compare_runs(runs)[0].metrics) == {"recall@50", "ndcg@50", "mrr@50"}
        return
    with pytest.raises(InputError, match=says):
        compare_runs(runs)


def test_fewer_users_are_refused(tmp_path):
    write_run(tmp_path / "a", user_places([1, 2, 3]))
    write_run(tmp_path / "b", user_places([1, 2]))
    with pytest.raises(InputError, match="they judged 3 and 2 users"):
        compare_runs([tmp_path / "a", tmp_path / "b"])


def test_the_commands_say_it_in_a_terminal_and_as_a_page(tmp_path, capsys):
    before, after = two_runs(tmp_path, [0, 20, 50, 3, 9, 12], [0, 4, 50, 3, 30, 2])
    command.main([str(before)])
    assert capsys.readouterr().out.startswith(f"Report: {before}/report.html (")
    checked(before / "report.html")
    compare.main(as_flags({"runs": f"{before},{after}", "html": tmp_path / "new/page.html"}))
    out = capsys.readouterr().out
    assert "| recall@10" in out and re.search(r"\| recall@10 +\| +6 \| 50.00 \| 66.67 \| \+16.67 \|", out)
    assert "at 10: 2 users became a hit, 1 became a miss, 2 are a hit in both, 1 in neither" in out
    assert "became a hit: u001, i001: place 21 -> 5" in out and "became a miss: u004" in out
    page = checked(tmp_path / "new/page.html")
    assert "50.00 → 66.67, +16.67" in page.texts["run-B"] and "place 21 → 5" in page.texts["run-B"]


def test_numbers_on_axes_are_round_and_short():
    assert ticks_of(0, 0.87) == [0, 0.25, 0.5, 0.75, 1.0] and ticks_of(-3, 2)[0] <= -3
    assert ticks_of(5, 5)[0] <= 5 <= ticks_of(5, 5)[-1]
    said = [short(x) for x in (0, 0.002, 1.5e-3, -12.5, 28128, 2.5e6, 0.25)]
    assert said == ["0", "2e-3", "1.5e-3", "-12.5", "28.1k", "2.5M", "0.25"]
