"""Ranked items for every user, as files: exact scores, the figures of evaluate_qwen3, also without labels."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import ROOT, as_flags, deepspeed
from good_folder import write_good_folder
from pyarrow import parquet
from test_evaluate_qwen3 import flags_of, write_talking_model
from transformers import AutoModelForCausalLM

from pixelrec_train.commands import build_samples
from pixelrec_train.commands.evaluate_pixelrec import EvaluateConfig
from pixelrec_train.commands.evaluate_qwen3 import EvaluateQwen3Config
from pixelrec_train.commands.predict import PredictConfig
from pixelrec_train.config.judging import cut_off_as_asked
from pixelrec_train.data.item_fields import read_fields
from pixelrec_train.data.predictions import write_predictions
from pixelrec_train.data.samples.rows import samples as read_samples
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.data.views.families import VIEWS
from pixelrec_train.data.views.view import CHAT as CHATS
from pixelrec_train.data.views.view import Asked, sample_name
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation import places, progress
from pixelrec_train.flags import parse_args
from pixelrec_train.recommend.checkpoints import load, load_generative
from pixelrec_train.recommend.questions import CHAT, HISTORY, THINK, Speaker, view_of
from pixelrec_train.trainings import asking, evaluate_checkpoint, evaluate_models, predict
from pixelrec_train.trainings.recommend import Recommender

in_blocks = places.in_blocks
ASKING = [task for task, view in VIEWS.items() if view.asks_for_id and "test" in view.splits]


@pytest.fixture(scope="module")
def folder(demo_config, tmp_path_factory):
    return write_talking_model(tmp_path_factory.mktemp("predicted"), demo_config)


@pytest.fixture(scope="module")
def flags(folder, demo_config):
    return flags_of(folder, demo_config)


@pytest.fixture(scope="module")
def asked(flags, folder, demo_config):
    """asked(name, num_beams=7) -> PredictConfig that writes to that directory."""

    def of(name, **changes):
        given = flags | {"model_dir": folder / "llm", "prompts": "chat", "output_dir": folder / name}
        given |= {"text_data": demo_config.text_data, "text_keys": "title"} | changes
        return parse_args(PredictConfig, as_flags({k: v for k, v in given.items() if v is not None}))

    return of


def predicted(config):
    """Rows of both files, which are equal."""
    predict.predict(config)
    lines = open(f"{config.output_dir}/predictions.jsonl", encoding="utf-8").read().splitlines()
    table = parquet.read_table(f"{config.output_dir}/predictions.parquet").to_pylist()
    found = [json.loads(line) for line in lines]
    assert table == found
    return found


def table_of(config):
    return json.loads(open(f"{config.output_dir}/table.json").read())


def test_scores_are_the_models_own_and_nobody_left_out_has_a_better_one(asked, folder):
    """Every id of the catalogue behind the same prompt, in transformers' own model."""
    config = asked("exact", num_beams=400, users=3, topk="12")
    rows, users = predicted(config), asking.read_users(config)
    speaker = Speaker(folder / "llm", (CHAT,), True)
    prepared = evaluate_models.prepared_of(config.model_dir, config, users, False)
    prompt = asking.prompts(prepared, speaker, CHAT, users, config)
    plain = AutoModelForCausalLM.from_pretrained(folder / "llm").eval()
    item_ids, words = users.inputs.interactions.item_ids, len(speaker.tokenizer)
    popularity, ids = users.inputs.split.popularity, speaker.vocabulary.token_ids(prepared.codes)
    number = {item_id: n for n, item_id in enumerate(item_ids)}
    spelled = speaker.spelled(prepared.codes)
    for e, row in enumerate(rows):
        distinct, of_item = np.unique(ids, axis=0, return_inverse=True)
        text = torch.cat([prompt(e).expand(len(distinct), -1), torch.from_numpy(distinct)], 1)
        with torch.no_grad():
            logits = plain(text).logits[:, -distinct.shape[1] - 1 : -1, :words].double().log_softmax(-1)
        scores = (
            logits.gather(2, torch.from_numpy(distinct)[..., None])[..., 0].sum(1).numpy()[of_item.ravel()]
        )
        unseen = [n for n in range(len(item_ids)) if item_ids[n] not in set(row["history"])]
        best = sorted(unseen, key=lambda n: (-round(scores[n], 4), -popularity[n], n))[:12]
        assert row["scores"] == pytest.approx(scores[best].tolist(), abs=1e-3)
        assert row["scores"] == sorted(row["scores"], reverse=True) and len(set(row["item_ids"])) == 12
        assert row["semantic_ids"] == [spelled[number[item_id]] for item_id in row["item_ids"]]
        # Those that share an id share its score, stand side by side, and the more popular one is in front.
        for one, other in zip(row["item_ids"], row["item_ids"][1:], strict=False):
            one, other = number[one], number[other]
            if spelled[one] == spelled[other]:
                assert (-popularity[one], one) < (-popularity[other], other)
        assert len(set(row["semantic_ids"])) < 12 or e  # the demo's items do share ids


def test_rows_are_users_in_the_order_of_the_split_with_their_tables_words(asked, demo_config):
    config = asked("words")
    rows, users = predicted(config), asking.read_users(config)
    read, held_out = users.inputs.interactions, users.held_out
    titles = dict(
        zip(read.item_ids, (f and f[0] for f in read_fields(read.item_ids, config)[0]), strict=True)
    )
    assert [row["user_id"] for row in rows] == [read.user_ids[user] for user in held_out.users]
    for e, row in enumerate(rows):
        assert row["history"] == [read.item_ids[item] for item in held_out.history(e)]
        assert row["target"] == read.item_ids[held_out.target[e]]
        assert row["titles"] == [titles[item_id] for item_id in row["item_ids"]]
        assert len(row["item_ids"]) == len(row["scores"]) == 10 and not set(row["item_ids"]) & set(
            row["history"]
        )
    assert all(row["titles"] is None for row in predicted(asked("no_titles", users=2, text_data=None)))
    kept = predicted(asked("kept", keep_seen=True, num_beams=400, topk="300", users=5))
    assert all(set(row["item_ids"]) & set(row["history"]) for row in kept)


@pytest.mark.parametrize("form", [HISTORY, CHAT, THINK])
def test_the_table_is_that_of_evaluate_qwen3_to_the_last_figure(asked, flags, folder, form, capsys):
    ours = asked(f"table_{form}", prompts=form, users=40)
    rows = predicted(ours)
    results = folder / f"results_{form}.json"
    theirs = parse_args(EvaluateQwen3Config, as_flags(flags | {
        "prompts": form, "users": 40, "output_dir": folder / f"judged_{form}", "save_results": results,
    }))  # fmt: skip
    evaluate_models.evaluate(theirs)
    (_, mine), (_, other) = table_of(ours).items(), table_of(theirs).items()
    for row in (mine[1], other[1]):
        row.pop("seconds"), row.pop("model_dir")
    assert mine[1] == other[1] and len(mine[1]) > 30
    assert "a user has one target, so recall@k is hit@k" in capsys.readouterr().out
    saved = json.loads(results.read_text())
    row = saved["metrics"][f"tiny · {form}"]
    hits = np.mean([r["target"] in r["item_ids"] for r in rows])
    assert (
        row["hit@10"] == row["recall@10"] == pytest.approx(hits) and row["sid_hit@5"] == row["sid_recall@5"]
    )
    assert [u["ranked"][f"tiny · {form}"] for u in saved["users"]] == [r["item_ids"] for r in rows]
    assert [u["user_id"] for u in saved["users"]] == [r["user_id"] for r in rows] and saved[
        "num_samples"
    ] == 40


def test_who_has_no_label_is_ranked_for_all_the_same_and_not_judged(asked, monkeypatch):
    config = asked("labelled", users=30)
    known, read = predicted(config), asking.read_users
    whole = table_of(config)

    def without(kept):
        def users(config):
            found = read(config)
            target = np.where(np.arange(len(found.held_out)) < kept, found.held_out.target, -1)
            return found._replace(held_out=dataclasses.replace(found.held_out, target=target))

        return users

    for kept in (0, 12):
        monkeypatch.setattr(predict, "read_users", without(kept))
        config = asked("labelled", users=30)
        found = predicted(config)
        assert found == [row | ({} if e < kept else {"target": None}) for e, row in enumerate(known)]
        names = {path.name for path in (ROOT / config.output_dir).iterdir()}
        assert ("table.json" in names) == bool(kept)  # that of the run before has gone
    row, at_10 = table_of(config)[f"{config.model_dir} · chat"], [r["item_ids"] for r in known[:12]]
    hits = [r["target"] in items for r, items in zip(known[:12], at_10, strict=True)]
    assert row["users"] == 12 and row["recall@10"] == pytest.approx(np.mean(hits))
    assert whole[f"{config.model_dir} · chat"]["users"] == 30
    monkeypatch.setattr(evaluate_models, "read_users", without(0))
    judged = EvaluateQwen3Config(**{
        f.name: getattr(config, f.name) for f in dataclasses.fields(EvaluateQwen3Config)
        if hasattr(config, f.name)
    } | {"model_dir": (config.model_dir,)})  # fmt: skip
    with pytest.raises(InputError, match="nobody|no user whose target is known.*scripts/predict.py"):
        evaluate_models.evaluate(judged)


@pytest.mark.parametrize("task", ASKING)
def test_any_task_that_asks_for_an_item_asks_as_its_training_texts_begin(task, asked, folder, demo_config):
    config = asked("question", question=task, text_keys="title,tag")
    users = asking.read_users(config)
    speaker = Speaker(folder / "llm", (CHAT, THINK), True)
    prepared = evaluate_models.prepared_of(config.model_dir, config, users, False)
    fields, _ = read_fields(users.inputs.interactions.item_ids, config)
    texts = {"text_keys": ("title", "tag"), "fields": fields, "categories_key": "tag"}
    known = speaker.known(users.inputs.interactions.item_ids, prepared.codes, **texts)
    how, renderer = (
        Asked(CHATS, config.history, 1, 1, False),
        Renderer(speaker.tokenizer, add_think_pattern=True),
    )
    made = {sample.uuid: sample for sample, _ in VIEWS[task].samples(known, users.part, how, config.seed)
            if hasattr(sample, "uuid")}  # fmt: skip
    thinks = task == "reasoned_prediction"
    prompt, compared = asking.prompts(prepared, speaker, THINK if thinks else CHAT, users, config), 0
    for e in range(len(users.held_out)):
        sample = made.get(sample_name(task, "test", CHATS, (*users.part.keys[e], 0)))
        if sample:
            ids, _ = renderer.encode([sample])[0]
            codes = [] if thinks else prepared.collator.code_ids[users.held_out.target[e]].tolist()
            whole = [*prompt(e).tolist(), *codes]
            assert ids[: len(whole)].tolist() == whole
            compared += 1
    assert compared > 20


@pytest.mark.parametrize(
    ("task", "more"),
    [("video_rec", {}), ("title_history_to_sid", {"category": "office products"}), ("type_c_seq_full", {}),
     ("sid_prediction", {}), ("reasoned_prediction", {})],
)  # fmt: skip
def test_unless_told_otherwise_users_are_asked_as_samples_are_built(task, more, asked, folder, demo_config):
    texts = {"text_keys": "title,tag", "text_data": demo_config.text_data} | more
    tables = {"interaction_data": demo_config.interaction_data, "semantic_ids": folder / "sid.json"}
    where = {"output_dir": folder / f"of_{task}", "model_dir": folder / "llm", "split": "test"}
    build_samples.main(as_flags({"task": task} | texts | tables | where))
    built = where["output_dir"]
    thinks = json.loads((built / "dataset.json").read_text())["add_think_pattern"]
    config = asked("own", question=task, history=None, **texts)
    assert config.add_think_pattern is thinks is (task in ("video_rec", "reasoned_prediction"))
    users = asking.read_users(config)
    speaker = evaluate_models.speaker_of(config.model_dir, config, False)
    prepared = evaluate_models.prepared_of(config.model_dir, config, users, False)
    renderer = Renderer(speaker.tokenizer, add_think_pattern=thinks)
    made = {
        sample.uuid: sample
        for file in built.glob("*.parquet")
        for _, sample in read_samples(file, 0)
    }  # fmt: skip
    form = THINK if task == "reasoned_prediction" else CHAT
    prompt, compared, longest = asking.prompts(prepared, speaker, form, users, config), 0, 0
    for e in range(len(users.held_out)):
        if sample := made.get(sample_name(task, "test", CHATS, (*users.part.keys[e], 0))):
            whole = prompt(e).tolist()
            assert renderer.encode([sample])[0][0][: len(whole)].tolist() == whole
            compared, longest = compared + 1, max(longest, len(users.held_out.history(e)))
    assert compared > 20 and longest > 10  # as many as MiniOneRec names
    told = asking.how_asked(form, users.view, config)  # lies in table.json
    assert told["question"] == task and told["history"] == VIEWS[task].most_history
    assert told.get("add_think_pattern") is (thinks if form == CHAT else None)


def test_an_item_of_any_training_row_is_not_cold_however_short_the_histories_of_prompts_are(asked):
    split = asking.read_users(asked("cold", history=3)).inputs.split
    assert (split.train_counts > 0).tolist() == (split.popularity > 0).tolist()


def test_a_question_must_be_answered_with_one_item_and_have_what_it_is_made_of():
    assert view_of("video_rec", "test", ()).task == "video_rec"
    for question, says in (
        ("video_recs", "no task of scripts/build_samples.py. Did you mean video_rec"),
        ("item_understand", "not answered with the id of one item.*Those that are: video_rec"),
        ("label_cond_rec", "not answered with the id of one item"),
        ("title_history_to_sid", "made from texts, so it needs --text_data"),
    ):
        with pytest.raises(InputError, match=says):
            view_of(question, "test", ())


def test_metrics_are_another_way_to_say_cut_offs(asked):
    base = ["--model_dir", "m", "--semantic_ids", "s", "--interaction_data", "i", "--output_dir", "o"]
    for words, topk in (
        ("--metrics hit@1,hit@5,hit@10,ndcg@5,ndcg@10", (1, 5, 10)),
        ("--metrics mrr@3 --topk 20,5", (3, 5, 20)),
        ("--topk 7", (7,)),
        ("", (1, 5, 10)),
    ):
        config = cut_off_as_asked(parse_args(PredictConfig, [*base, *words.split()]))
        assert config.topk == topk
    assert parse_args(PredictConfig, [*base, "--split_type", "val", "--batch_size", "4"]).split == "valid"


def test_what_is_verbose_shows_prompt_thought_answers_and_the_hit(asked, capsys):
    config = asked("told", prompts="think", users=40, verbose=True, num_beams=400, topk="500", keep_seen=True)
    rows = predicted(config)
    out = capsys.readouterr().out
    shown = out.split("asked by think\n")[1:]
    assert len(shown) == asking.SHOWN_USERS
    for row, text in zip(rows, shown, strict=False):
        assert (
            "  prompt: <|im_start|>" in text
            and "  thought: " in text
            and f"  target: {row['target']} " in text
        )
        (hit,) = [line for line in text.splitlines() if line.endswith("<- hit")]
        place = row["item_ids"].index(row["target"])
        assert hit.split()[:3] == [f"{place + 1}.", f"{row['scores'][place]:.4f}", row["target"]]


def test_a_long_evaluation_tells_of_those_judged_so_far(asked, monkeypatch):
    """Of a recall that is not 0: of the first 300 of 726 items."""
    config = asked("so_far", prompts="history", eval_batch_size=64, topk="300", keep_seen=True)
    users, told, blocks = asking.read_users(config), [], []
    prepared = evaluate_models.prepared_of(config.model_dir, config, users, False)
    speaker = Speaker(config.model_dir, (HISTORY,), True)
    monkeypatch.setattr(progress, "PATIENCE", 1000.0)
    judged, _ = asking.ask(prepared, speaker, HISTORY, users, config, told.append)
    assert not told  # nobody waits for so short a time
    monkeypatch.setattr(progress, "PATIENCE", 0.0)

    def counted(count, *rest):
        blocks.append(count)
        return in_blocks(count, *rest)

    monkeypatch.setattr(places, "in_blocks", counted)
    again, _ = asking.ask(prepared, speaker, HISTORY, users, config, told.append)
    assert np.array_equal(again.places, judged.places) and blocks == [len(judged.places)]
    assert 15 <= len(told) <= 19 and [s.done for s in told] == sorted({s.done for s in told})
    for so_far in told:  # users are judged in their order where all searches are equally wide
        share = np.mean(judged.places[: so_far.done] < 300)
        assert so_far.figures["recall@300"] == pytest.approx(share) and 0 < share < 1
        assert so_far.of == len(judged.places) and so_far.users_per_s > 0
    assert "of 120 users | recall@300 0." in told[0].text() and told[0].text().endswith("users/s")


def test_files_are_there_whole_or_not_at_all(tmp_path):
    def rows():
        yield dict.fromkeys(("user_id", "target", "titles"), None) | {
            "history": [], "item_ids": ["a"], "scores": [-1.0], "semantic_ids": None,
        }  # fmt: skip
        raise OSError("the disk is full")

    with pytest.raises(OSError):
        write_predictions(tmp_path / "out", rows())
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture(scope="module")
def checkpoints(demo, demo_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_good_folder(folder, demo, demo_config)
    return folder


@pytest.mark.parametrize("head", ["done", "told"])
def test_a_checkpoint_of_either_head_ranks_as_it_is_evaluated(checkpoints, head, monkeypatch):
    monkeypatch.chdir(checkpoints)
    given = {
        "checkpoint": f"{head}/best_model",
        "output_dir": f"out/{head}",
        "cache_dir": "cache",
        "topk": "3,10",
    }
    config = parse_args(PredictConfig, as_flags(given | {"text_data": "items.csv"}))
    rows = predicted(config)
    if head == "done":
        loaded = load(config.checkpoint, {"cache_dir": "cache"}, (), config)
    else:
        loaded = load_generative(config.checkpoint, {"cache_dir": "cache"}, ())
    held_out, ids = loaded.inputs.split.test, loaded.inputs.interactions.item_ids
    histories = [held_out.history(e) for e in range(len(held_out))]
    lists = loaded.recommender.recommend(histories, histories, 10)
    assert [row["item_ids"] for row in rows] == [[ids[item] for item in items] for items in lists.tolist()]
    assert [row["target"] for row in rows] == [ids[item] for item in held_out.target]
    assert any(rows[0]["titles"])
    name = "two_tower" if head == "done" else "generative"
    hits = np.mean([row["target"] in row["item_ids"][:3] for row in rows])
    assert table_of(config)[name]["recall@3"] == pytest.approx(hits)
    if head == "done":
        users = loaded.recommender.encode(histories).numpy()
        catalogue, number = loaded.recommender.catalogue, {item_id: n for n, item_id in enumerate(ids)}
        for user, row in zip(users, rows, strict=True):
            vectors = catalogue[[number[item_id] for item_id in row["item_ids"]]]
            cosines = vectors @ user / np.linalg.norm(vectors, axis=1) / np.linalg.norm(user)
            assert row["scores"] == pytest.approx(cosines.tolist(), abs=1e-5) and row["semantic_ids"] is None
    else:
        assert rows[0]["semantic_ids"][0].startswith("<|sid_begin|><s_a_") and max(rows[0]["scores"]) < 0


def test_a_blend_ranks_as_it_is_evaluated(checkpoints, monkeypatch):
    """A+B, whose weights validation chooses, and the blend.json that evaluation leaves of it."""
    monkeypatch.chdir(checkpoints)
    spec, shared = "done/best_model+item_knn", {"cache_dir": "cache", "topk": "3,10"}
    judging = shared | {"checkpoint": spec, "output_dir": "out/judged"}
    evaluate_checkpoint.evaluate(parse_args(EvaluateConfig, as_flags(judging)))
    told = json.loads((checkpoints / "out/judged/metrics.json").read_text())["metrics"]["blend"]
    found = []
    for name, checkpoint in (("chosen", spec), ("written", "out/judged/blend.json")):
        given = shared | {"checkpoint": checkpoint, "output_dir": f"out/{name}", "text_data": "items.csv"}
        config = parse_args(PredictConfig, as_flags(given))
        found.append(predicted(config))
        hits = np.mean([row["target"] in row["item_ids"][:3] for row in found[-1]])
        assert table_of(config)["blend"]["recall@3"] == told["recall@3"] == pytest.approx(hits)
    assert found[0] == found[1] and any(found[0][0]["titles"])
    door = Recommender.load("out/judged/blend.json", cache_dir="cache")
    for row in found[0][:5]:
        (best,) = door.recommend([row["history"]], k=10)
        assert [one.item_id for one in best] == row["item_ids"]
        assert row["scores"] == pytest.approx([one.score for one in best], abs=1e-5)


def test_a_hybrid_needs_a_generative_checkpoint(checkpoints, monkeypatch):
    monkeypatch.chdir(checkpoints)
    given = {"checkpoint": "done/best_model", "hybrid": "done/best_model", "output_dir": "out/none"}
    with pytest.raises(InputError, match="names none"):
        predict.predict(parse_args(PredictConfig, as_flags(given)))
    with pytest.raises(InputError, match="not with --model_dir"):
        parse_args(PredictConfig, as_flags({"model_dir": "m", "hybrid": "h", "output_dir": "o"}))


@pytest.mark.launch
def test_one_and_two_ranks_write_the_same(asked):
    alone = asked("ranks1", prompts="think", users=50)
    rows, both = predicted(alone), asked("ranks2", prompts="think", users=50)
    given = {f.name: getattr(both, f.name) for f in dataclasses.fields(both)}
    default = {f.name: f.default for f in dataclasses.fields(both)}
    command = as_flags({name: value for name, value in given.items() if value != default[name]})
    result = deepspeed(2, ROOT / "scripts/predict.py", *command)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("predictions.jsonl", "predictions.parquet"):
        ours, theirs = (open(f"{c.output_dir}/{name}", "rb").read() for c in (alone, both))
        assert ours == theirs
    assert len(rows) == 50
    tables = [table_of(config) for config in (alone, both)]
    for table in tables:
        for row in table.values():
            row.pop("seconds", None)
    assert tables[0] == tables[1]
