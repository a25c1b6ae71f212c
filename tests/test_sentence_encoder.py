"""Encoders read as their sentence-transformers directory says, and towers of different width joined."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, inputs_of
from good_folder import write_checkpoint
from sentence_encoders import CASES, TEXTS, write, write_encoder, write_modules
from test_item_ids import batch_of, exported

from pixelrec_train.batch import PackedTexts
from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.data.item_text import Reader, tokenise
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.retrieval import encode_catalogue
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.backbone import load_backbone, read_tensors
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.pooling import pool
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.recommend import checkpoints
from pixelrec_train.recommend.frozen_texts import embed_texts
from pixelrec_train.recommend.item_embeddings import of_encoder
from pixelrec_train.sentence_encoder import POOLINGS, SentenceEncoder
from pixelrec_train.tasks.two_tower import TwoTowerTask
from pixelrec_train.trainings.plan import describe_model

EXPECTED = json.loads((ROOT / "tests/fixtures/sentence_encoders.json").read_text())
TANH = "torch.nn.modules.activation.Tanh"


@torch.no_grad()
def embed(directory, pooling=None, limit=999):
    """[5, D] of TEXTS, as any command reads them."""
    reads = SentenceEncoder.of(directory, "--x", pooling).within(limit, None)
    texts = [reads.prompt + text for text in TEXTS]
    tokens, offsets = tokenise(load_tokenizer(directory), texts, limit, 0, reads)
    encoder = TextEncoder.of(load_backbone(directory, "--x"), 0, 40, reads, directory).eval()
    lengths = torch.from_numpy(np.diff(offsets))
    return encoder(PackedTexts(torch.from_numpy(tokens.astype("i8")), lengths))


@pytest.mark.parametrize("name", CASES)
def test_texts_are_embedded_as_sentence_transformers_itself_embeds_them(tmp_path, name):
    found = embed(write_encoder(tmp_path / "x", **CASES[name]))
    assert torch.allclose(found, torch.tensor(EXPECTED[name]), atol=1e-5)


def test_what_is_written_is_read_the_same_again(tmp_path):
    for name, case in CASES.items():
        reads = SentenceEncoder.of(write_encoder(tmp_path / name, **case), "--x").within(25, None)
        (tmp_path / "again").mkdir(exist_ok=True)
        reads.write(tmp_path / "again", 32)
        again = SentenceEncoder.of(tmp_path / "again", "--x")
        assert replace(again, layers=reads.layers) == reads and again.max_tokens <= 25
        assert list(map(str, again.layers)) == list(map(str, reads.layers)) and len(again.folders) < 4


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_pooling_is_that_of_each_text_alone(mode):
    lengths = torch.tensor([3, 1, 5])
    hidden = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) - 1
    for found, rows in zip(pool(mode, hidden, lengths), hidden.split(lengths.tolist()), strict=True):
        weights = [place * row for place, row in enumerate(rows, 1)]
        expected = {
            "mean": sum(rows) / len(rows), "cls": rows[0], "last_token": rows[-1], "max": rows.max(0)[0],
            "weighted_mean": sum(weights) / sum(range(1, len(rows) + 1)),
            "sqrt_mean": sum(rows) / len(rows) ** 0.5,
        }[mode]  # fmt: skip
        assert torch.allclose(found, expected, atol=1e-6)


def test_pooling_overrides_and_what_comes_behind_it_stays(tmp_path):
    mean = write_encoder(tmp_path / "mean", "bert", {"pooling_mode_mean_tokens": True}, normalise=True)
    last = write_encoder(tmp_path / "last", "bert", {"pooling_mode": "lasttoken"}, normalise=True)
    assert torch.equal(embed(mean, "last_token"), embed(last))
    assert not torch.allclose(embed(mean), embed(last), atol=1e-2)


def test_a_long_text_keeps_its_closing_token(tmp_path):
    directory = write_encoder(tmp_path / "x", **CASES["last token, a prompt"])
    reads, tokenizer = SentenceEncoder.of(directory, "--x"), load_tokenizer(directory)
    for limit in (12, 20, 50):
        within = reads.within(limit, None)
        tokens, offsets = tokenise(tokenizer, TEXTS, limit, 0, within)
        assert within.max_tokens == min(limit, 20) == np.diff(offsets).max()
        assert (tokens[offsets[1:] - 1] == tokenizer.eos_token_id).all()


REFUSED = {
    "has WeightedLayerPooling in place 2": [("", "Transformer"), ("1", "WeightedLayerPooling")],
    "has LSTM in place 3": [("", "Transformer"), ("1_Pooling", "Pooling"), ("2", "LSTM")],
    "has StaticEmbedding in place 1": [("", "StaticEmbedding")],
    "names no Pooling": [("", "Transformer")],
    "keeps its transformer in 0_Transformer/": [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")],
}


@pytest.mark.parametrize("words", REFUSED)
def test_modules_that_cannot_be_followed_are_refused_in_one_sentence(tmp_path, words):
    write_modules(tmp_path, REFUSED[words])
    with pytest.raises(InputError, match=words):
        SentenceEncoder.of(tmp_path, "--item_model_dir")


@pytest.mark.parametrize(
    "file, holds, words",
    [
        ("1_Pooling", {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "for cls and max"),
        ("1_Pooling", {"pooling_mode": "attention"}, "asks for attention"),
        ("1_Pooling", {"pooling_mode": "mean", "include_prompt": False}, "leaves the prompt out"),
        ("2_Dense", {"in_features": 8, "out_features": 8, "activation_function": "x.Y"}, "activation x.Y"),
        ("2_Dense", {"in_features": 8, "out_features": 8, "use_residual": True}, "has a residual"),
        ("2_Dense", {"module_input_name": "token_embeddings"}, "module_input_name 'token_embeddings'"),
        ("2_Dense", {"activation_function": TANH}, "the widths None and None"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused_in_one_sentence(tmp_path, file, holds, words):
    write_modules(tmp_path, [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")])
    write(tmp_path / "1_Pooling/config.json", {"pooling_mode": "mean"})
    write(tmp_path / "config_sentence_transformers.json", {"prompts": {"passage": "passage: "}})
    write(tmp_path / "2_Dense/config.json", {"in_features": 8, "out_features": 8})
    write(tmp_path / file / "config.json", holds)
    with pytest.raises(InputError, match=words):
        SentenceEncoder.of(tmp_path, "--item_model_dir")


@pytest.fixture(scope="module")
def theirs(demo, tmp_path_factory):
    """A tower of width 32 that gives vectors of 16, cut at 14 tokens, behind a prompt."""
    case = dict(kind="bert", pooling={"pooling_mode": "cls"}, dense=[(16, True, TANH)], normalise=True)
    prompts = {"prompts": {"document": "item: "}}
    return write_encoder(
        tmp_path_factory.mktemp("theirs") / "x", max_seq_length=14, prompts=prompts,
        texts=all_text(demo / "items.csv"), **case,
    )  # fmt: skip


@pytest.fixture
def frozen(config_with, theirs, tmp_path):
    return config_with(
        item_model_dir=str(theirs), freeze_item_llm=True, item_prompt=ITEM_PROMPT,
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip


ITEM_PROMPT = "Compress the following sentence into embedding: "  # nothing was given


def start(config, inputs):
    torch.manual_seed(0)
    return HLLMModel.starting(config, inputs.interactions.item_ids, inputs.split.train_counts)


def test_a_frozen_tower_is_followed_and_the_plan_says_so(frozen):
    inputs = inputs_of(frozen)
    assert frozen.item_emb_token_n == 0 and inputs.item_text.lengths.max() == 14
    plan = "\n".join(describe_model(frozen, start(frozen, inputs), inputs))
    assert (
        "item embedding: as its sentence-transformers directory says, its first token, a Dense layer "
        "32 -> 16 (tanh), scaled to length 1; the prompt 'item: ', at most 14 tokens\n"
        "projection: a learned linear map from item embeddings of 16 to the user LLM's 32\n"
    ) in plan
    by_hand = replace(frozen, pooling="mean", item_prompt="x", max_text_length=9)
    plan = "\n".join(describe_model(by_hand, start(by_hand, inputs), inputs))
    assert "says, the mean of its tokens, a Dense" in plan and "'x', at most 9 tokens (--pooling)" in plan
    joint = replace(frozen, freeze_item_llm=False, item_emb_token_n=1)
    plan = "\n".join(describe_model(joint, start(joint, inputs), inputs))
    assert "of [ITEM]; --item_emb_token_n 0 follows its sentence-transformers directory" in plan


def test_a_checkpoint_remembers_how_it_reads_and_is_such_a_directory_itself(frozen, tmp_path, theirs):
    inputs, checkpoint = inputs_of(frozen), tmp_path / "run/best_model"
    write_checkpoint(checkpoint, frozen, inputs)
    trained = start(frozen, inputs)
    texts = encode_catalogue(trained.encode_texts, inputs.item_text, 300)
    assert texts.shape[1] == 16 and np.allclose((texts**2).sum(1), 1, atol=1e-5)
    files = checkpoints.data_files(frozen, text_data=frozen.text_data)
    _, model, catalogue, _ = checkpoints.load_towers(checkpoint, files, (), 300)
    written = read_tensors(checkpoint / "hllm_head.safetensors")["projection"]
    assert catalogue.shape[1] == 32 and torch.equal(model.projection.weight, written)
    assert np.allclose(model.stored.numpy(), texts, atol=1e-6)
    for directory in (theirs, checkpoint / "item_llm"):
        items = of_encoder(directory, frozen, frozen, False, 300)
        assert np.allclose(items.embeddings, texts, atol=1e-6) and "its first token" in items.source


def test_init_from_keeps_pooling_and_projection(frozen, tmp_path):
    inputs = inputs_of(frozen)
    model = start(frozen, inputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    checkpoint = exported(model, frozen, tmp_path / "first")
    config = replace(frozen, init_from=checkpoint, item_model_dir=None, user_model_dir=None)
    config = replace(config, item_emb_token_n=0)
    again = start(config, inputs)
    for (name, ours), (other, parameter) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(ours, parameter), name
    assert Reader.of(config, config.item_dir, ()).item_prompt == "item: "
    assert str(again.item_llm.pooling.encoder) == str(model.item_llm.pooling.encoder)


def test_embedded_texts_are_found_again_only_for_the_same_pooling(frozen, theirs, tmp_path):
    inputs = inputs_of(frozen)

    def new(pooling):
        reads = SentenceEncoder.of(theirs, "--x", pooling).within(24, None)
        encoder = TextEncoder.of(load_backbone(theirs, "--x"), 0, 24, reads, theirs).eval()
        return embed_texts(encoder, inputs.item_text, theirs, 300, tmp_path / "vectors")[1]

    assert [new(None), new(None), new("mean"), new("mean")] == [True, False, True, False]


def test_a_projection_starts_from_what_there_is_without_it_and_learns(config_with):
    """Between equal widths as the identity; into a wider space all cosines stay."""
    config = config_with(item_emb_token_n=0, freeze_item_llm=True, projection=True)
    inputs = inputs_of(config)
    with_it, without = start(config, inputs), start(replace(config, projection=False), inputs)
    items = inputs.item_text.items([3, 1, 4])
    with torch.no_grad():
        assert torch.equal(with_it.encode_items(items), without.encode_items(items))
    loss, _ = TwoTowerTask(with_it, config, config.item_dir)(batch_of(inputs))
    loss.backward()
    assert with_it.projection.weight.grad.abs().sum() > 0 and without.projection is None


def test_a_projection_into_a_wider_space_keeps_all_cosines(frozen):
    inputs = inputs_of(frozen)
    model, items = start(frozen, inputs), inputs.item_text.items([3, 1, 4])
    with torch.no_grad():
        texts, projected = model.encode_texts(items), model.encode_items(items)
    assert texts.shape[1] == 16 and projected.shape[1] == 32
    assert torch.allclose(projected @ projected.T, texts @ texts.T, atol=1e-5)


@pytest.mark.parametrize("flag", ["pooling", "projection"])
def test_ids_alone_have_no_text_to_pool_or_to_project(config_with, flag):
    with pytest.raises(InputError, match=f"--id_only has no text to .*leave out --{flag}"):
        config_with(id_only=True, item_emb_token_n=0, **{flag: "cls" if flag == "pooling" else True})
