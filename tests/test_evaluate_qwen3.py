"""Language models asked by ids, in chats and after a thought: in the tokens of training, with exact beams."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import ROOT, as_flags, deepspeed
from transformers import AutoModelForCausalLM

from pixelrec_train.commands.evaluate_qwen3 import EvaluateQwen3Config
from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.data import interactions
from pixelrec_train.data.samples import Sample
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.data.views.openonerec import VIDEO_REC
from pixelrec_train.data.views.view import CHAT as CHATS
from pixelrec_train.data.views.view import Asked
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.places import judge
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.reading import Decoder, read
from pixelrec_train.model.thoughts import Sampling, think, uniforms
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.recommend.questions import CHAT, FORMS, HISTORY, THINK, Speaker
from pixelrec_train.recommend.thinking import Thinking, key_of
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.trainings import asking, evaluate_models

SIZES = (6, 7, 9)


@pytest.fixture(scope="module")
def folder(demo_config, tmp_path_factory):
    return write_talking_model(tmp_path_factory.mktemp("judged"), demo_config)


@pytest.fixture(scope="module")
def flags(folder, demo_config):
    return flags_of(folder, demo_config)


def write_talking_model(folder, demo_config):
    """sid.json, where items share ids, and llm/: a tiny LM that chats and has words for them. The folder."""
    data = interactions.read([demo_config.interaction_data], demo_config)
    rng = np.random.default_rng(0)
    codes = np.stack(np.unravel_index(rng.integers(0, np.prod(SIZES), data.num_items), SIZES), 1)
    SemanticIds(data.item_ids, codes.astype(np.int32), SIZES).save(folder / "sid.json")
    write_causal_lm(all_text(demo_config.text_data), folder / "lm", hidden_size=32, vocab_size=600, chat=True)
    expand(folder / "lm", folder / "llm", "onerec", SIZES, "mean", 0)
    model = AutoModelForCausalLM.from_pretrained(folder / "llm")
    with torch.no_grad():  # so that no two scores are nearly equal
        for weight in model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
        rows = model.get_input_embeddings().weight
        rows.copy_(torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    model.save_pretrained(folder / "llm")
    return folder


def flags_of(folder, demo_config):
    return {
        "model_dir": f"tiny={folder / 'llm'}", "semantic_ids": folder / "sid.json", "history": 8,
        "interaction_data": demo_config.interaction_data, "cache_dir": demo_config.cache_dir,
        "prompts": ",".join(FORMS), "num_beams": 20, "topk": "5,10", "thought_tokens": 12, "temperature": 1.0,
        "output_dir": folder / "out",
    }  # fmt: skip


@pytest.fixture(scope="module")
def config(flags):
    return EvaluateQwen3Config(
        **{k: str(v) if "dir" in k or "_" in k and not isinstance(v, int) else v for k, v in flags.items()}
        | {"model_dir": (flags["model_dir"],), "prompts": FORMS, "topk": (5, 10), "temperature": 1.0}
    )


@pytest.fixture(scope="module")
def ready(folder, config):
    """(Prepared, Speaker, Users)"""
    users = asking.read_users(config)
    model = TokenModel.load(folder / "llm").eval()
    prepared = Prepared.of(model, folder / "llm", folder / "sid.json", users.inputs)
    return prepared, Speaker(folder / "llm", FORMS, add_think_pattern=True), users


def samples(ready, config):
    """Those that scripts/build_samples.py makes of the split, in the order of its users."""
    prepared, speaker, users = ready
    known = speaker.known(users.inputs.interactions.item_ids, prepared.codes)
    asked = Asked(CHATS, config.history, 10, 1, True)
    return [sample for sample, _ in VIDEO_REC.samples(known, users.part, asked, config.seed)]


def codes_of(ready, user):
    prepared, _, users = ready
    return prepared.collator.code_ids[users.held_out.target[user]].tolist()


@pytest.mark.parametrize("add_think_pattern", [True, False])
def test_a_chat_is_asked_in_the_very_tokens_of_its_training_text(ready, config, folder, add_think_pattern):
    prepared, _, users = ready
    speaker = Speaker(folder / "llm", FORMS, add_think_pattern)
    prompt = asking.prompts(prepared, speaker, CHAT, users, config)
    renderer = Renderer(speaker.tokenizer, add_think_pattern=add_think_pattern)
    made = samples(ready, config)
    assert len(made) == len(users.held_out) > 100
    for user in range(0, len(made), 7):
        ids, is_label = renderer.encode([made[user]])[0]
        asked = prompt(user).tolist()
        whole = [*asked, *codes_of(ready, user)]
        assert ids[: len(whole)].tolist() == whole and is_label[len(asked) : len(whole)].all()


def test_a_thought_is_asked_for_and_followed_in_the_very_tokens_of_a_training_text(ready, config):
    prepared, speaker, users = ready
    prompt = asking.prompts(prepared, speaker, THINK, users, config)
    renderer = Renderer(speaker.tokenizer, add_think_pattern=True)
    for user, sample in list(enumerate(samples(ready, config)))[::11]:
        *asked, answer = sample.messages
        thought = f"<think>\nSo it is {user}.\n</think>\n"
        told = Sample("u", "s", (*asked, answer | {"content": thought + answer["content"]}), None)
        ids = renderer.encode([told])[0][0].tolist()
        start, behind = prompt(user).tolist(), [*speaker.behind[0].tolist(), *codes_of(ready, user)]
        end = ids.index(speaker.end_id, len(start)) + 1
        assert ids[: len(start)] == start and ids[end : end + len(behind)] == behind
        words = speaker.tokenizer.decode(ids[len(start) : end])
        assert words == f"<think>\nSo it is {user}.\n</think>"
        # A thought that is cut is ended as training texts end theirs.
        cut = speaker.tokenizer.decode([*ids[len(start) : end - 2], *speaker.behind[1].tolist()])
        assert cut.startswith(f"<think>\nSo it is {user}") and cut.endswith("</think>\n\n<|sid_begin|>")


def test_beams_behind_thoughts_are_those_of_whole_texts_in_transformers_own_model(ready, config, folder):
    prepared, speaker, users = ready
    prompt = asking.prompts(prepared, speaker, THINK, users, config)
    thinking = Thinking(speaker, how := Sampling(1.0, 20, 0.95), 12, seed=5)
    search, texts = prepared.search("full", thinking), [prompt(user) for user in range(9)]
    leaves, scores = search(texts, 15)

    plain = AutoModelForCausalLM.from_pretrained(folder / "llm").eval()
    words, rows = len(speaker.tokenizer), [torch.arange(a, b + 1) for a, b in speaker.vocabulary.level_ranges]
    decoder = Decoder.of(
        plain
    )._replace(  # rows that are no token are none here either
        logits=lambda hidden: plain.lm_head(hidden)[..., :words],
        log_norm=lambda hidden: plain.lm_head(hidden)[..., :words].logsumexp(-1),
    )
    for text, found, score in zip(texts, leaves, scores, strict=True):
        alone = read(decoder, text[None], torch.ones_like(text[None]))
        numbers = uniforms(5, [key_of(text)], 12)
        _, thought = think(decoder, alone, numbers, speaker.end_id, speaker.stop_ids, how)
        behind = speaker.behind[0 if thought.ended[0] else 1]
        whole = torch.cat([text, thought.token_ids[0][thought.real[0]], behind])[None]
        expected = beam_search(decoder, prepared.trie, rows, whole, torch.ones_like(whole), 15)
        assert torch.equal(expected.leaves[0], found) and torch.allclose(expected.scores[0], score, atol=1e-4)
        assert thinking.told[key_of(text)] == (int(thought.real.sum()), bool(thought.ended[0]))
    assert torch.equal(search(texts[::-1], 15)[0], leaves.flip(0))
    facts = thinking.facts()["thoughts"]
    assert facts["different"] == 9 and 0 < facts["mean_tokens"] <= 12 and facts["example"]


def test_asked_by_ids_a_model_is_judged_as_every_generative_checkpoint_is(ready, config):
    prepared, speaker, users = ready
    judged, _ = asking.ask(prepared, speaker, HISTORY, users, config)
    known = judge(prepared.recommender(config.history + 1, config.num_beams, "full"), users.held_out, config)
    assert np.array_equal(judged.places, known.places)
    assert known.counts.items() <= judged.counts.items() and "openonerec_pid_pass@20" in judged.counts


def test_users_that_are_drawn_are_asked_in_their_own_words(ready, config):
    prepared, speaker, everybody = ready
    some = asking.read_users(dataclasses.replace(config, users=10))
    assert len(some.held_out) == 10 and np.array_equal(
        some.held_out.target, everybody.held_out.target[some.numbers]
    )
    for form in FORMS:
        of_some, of_all = (
            asking.prompts(prepared, speaker, form, users, config) for users in (some, everybody)
        )
        assert [of_some(e).tolist() for e in range(10)] == [of_all(n).tolist() for n in some.numbers]
    asked = [speaker.tokenizer.decode(of_all(n)) for n in range(40)]  # in the words of a thought's question
    assert len({text.partition("<|im_start|>user\n")[2][:9] for text in asked}) == len(VIDEO_REC.chats)


def test_rows_are_named_by_directory_or_as_they_are_told(tmp_path):
    (tmp_path / "a=b").mkdir()
    odd = str(tmp_path / "a=b")
    assert evaluate_models.named(("x/llm", "sft=y/llm", odd)) == {"x/llm": "x/llm", "sft": "y/llm", odd: odd}
    for wrong, says in ((("x", "x"), "names x twice"), (("=x",), "or NAME=DIRECTORY"), (("a=",), "or NAME=")):
        with pytest.raises(InputError, match=says):
            evaluate_models.named(wrong)


@pytest.mark.launch
def test_one_and_two_ranks_write_the_same_table(config, flags, folder):
    evaluate_models.evaluate(dataclasses.replace(config, users=60, output_dir=str(folder / "ranks1")))
    command = as_flags(flags | {"output_dir": folder / "ranks2", "users": 60})
    result = deepspeed(2, ROOT / "scripts/evaluate_qwen3.py", *command)
    assert result.returncode == 0, result.stdout + result.stderr
    tables = [json.loads((folder / f"ranks{ranks}/table.json").read_text()) for ranks in (1, 2)]
    for row in (*tables[0].values(), *tables[1].values()):
        row.pop("seconds", None)
    assert list(tables[0]) == ["popularity", "tiny · history", "tiny · chat", "tiny · think"]
    assert tables[0] == tables[1] and tables[0]["tiny · think"]["thoughts"]["different"] == 60
    text = (folder / "ranks2/table.md").read_text()
    assert "all users (60), %" in text and "as OpenOneRec counts, %" in text and "of 60 ended by them" in text
