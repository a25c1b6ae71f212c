"""What other programs get of a two-tower checkpoint is what the model itself gives, without its code."""

import dataclasses
import importlib.util
import json

import faiss
import numpy as np
import pytest
import torch
from conftest import as_flags, inputs_of
from good_folder import write_checkpoint
from safetensors.numpy import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoTokenizer, Gemma3TextConfig

from pixelrec_train.batch import pad_histories
from pixelrec_train.commands import export as command
from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.data.item_fields import read_texts
from pixelrec_train.evaluation.index import unit
from pixelrec_train.evaluation.retrieval import encode_histories
from pixelrec_train.export import indexes, sentences, towers
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.pooling import pool
from pixelrec_train.model.tiny import write_towers
from pixelrec_train.sentence_encoder import POOLINGS

PROMPT = "An item: "
PROGRAMS = {}  # as they were loaded from their files


@pytest.fixture(scope="module")
def trained(demo, demo_config, tmp_path_factory):
    """(TrainConfig, Inputs, checkpoint) with a prompt, texts that are cut, a projection; untrained."""
    folder = tmp_path_factory.mktemp("towers")
    write_towers(all_text(demo / "items.csv"), folder, hidden_size=32, layers=1, vocab_size=400)
    config = dataclasses.replace(
        demo_config, item_prompt=PROMPT, max_text_length=12, projection=True,
        item_model_dir=str(folder / "item_llm"), user_model_dir=str(folder / "user_llm"),
        output_dir=str(tmp_path_factory.mktemp("run")),
    )  # fmt: skip
    inputs, checkpoint = inputs_of(config), tmp_path_factory.mktemp("run") / "best_model"
    with pytest.MonkeyPatch.context() as patch:  # a projection starts as the identity
        patch.setattr(torch, "eye", lambda width: torch.randn(width, width) / 4)
        torch.manual_seed(0)
        write_checkpoint(checkpoint, config, inputs)
    return config, inputs, checkpoint


@pytest.fixture(scope="module")
def exported(trained, demo, tmp_path_factory):
    """The directory that scripts/export.py makes of it by its defaults."""
    out = tmp_path_factory.mktemp("exported") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes, "TIMED_S", 0.02)
        load = torch.export.load  # takes seconds
        patch.setattr(torch.export, "load", lambda path: PROGRAMS.setdefault(path.stem, load(path)))
        flags = {"checkpoint": trained[2], "output_dir": out, "cache_dir": trained[0].cache_dir}
        command.main(as_flags(flags | {"index": "flat,ivf,hnsw"}))
    return out


@pytest.fixture(scope="module")
def model(trained):
    config, inputs, checkpoint = trained
    return HLLMModel.load(checkpoint, config.max_text_length, inputs.interactions.item_ids)


@torch.no_grad()
def embeddings(model, inputs):
    return model.encode_items(inputs.item_text.items(np.arange(inputs.interactions.num_items)))


def test_an_index_is_read_by_plain_faiss_and_its_row_of_the_table_is_true(exported, trained, model):
    _, inputs, _ = trained
    items = unit(embeddings(model, inputs).numpy())
    assert (exported / "item_ids.txt").read_text().splitlines() == inputs.interactions.item_ids
    table = json.loads((exported / "index_table.json").read_text())
    test = inputs.split.test
    (written,) = load_file(exported / "item_embeddings.safetensors").values()
    histories = [test.history(e) for e in range(len(test))]
    with torch.no_grad():
        users = unit(encode_histories(model.user_llm, torch.from_numpy(written), histories, 6).numpy())
    exact = np.argsort(-(users @ items.T), axis=1)[:, :100]
    assert [row["index"] for row in table["rows"]] == ["flat", "ivf", "hnsw"]
    assert table["asked"] + table["chosen_by"] == len(test) and table["k"] == 100
    for row in table["rows"]:
        index = faiss.read_index(str(exported / f"{row['index']}.faiss"))
        _, found = index.search(users, 100)
        recall = np.mean([np.isin(a, b).mean() for a, b in zip(found, exact, strict=True)])
        assert recall == pytest.approx(row["recall"], abs=0.03)  # which is of half of these users
        assert row["recall"] >= 0.9
        assert row["megabytes"] == (exported / f"{row['index']}.faiss").stat().st_size / 1e6
        assert row["queries_per_s"] > 0 and row["reached"]
    assert table["rows"][0]["recall"] == 1


def test_the_towers_are_programs_that_give_what_the_model_gives(exported, trained, model):
    config, inputs, _ = trained
    assert json.loads((exported / "export.json").read_text())["left_out"] == {}
    item, user = (PROGRAMS[f"{name}_tower"].module() for name in ("item", "user"))
    expected = embeddings(model, inputs)
    read, _ = read_texts(inputs.interactions.item_ids, config, PROMPT)
    tokenizer = AutoTokenizer.from_pretrained(exported / "tokenizer")
    for chosen in ([5], [0, 8, 3], range(40)):  # other numbers than it was made by
        cut = {"padding": True, "truncation": True, "max_length": 12, "return_tensors": "pt"}
        texts = tokenizer([read[n] for n in chosen], padding_side="right", **cut)
        with torch.no_grad():
            found = item(texts.input_ids, texts.attention_mask)
        torch.testing.assert_close(found, expected[list(chosen)], rtol=0, atol=1e-5)
    histories = [inputs.split.test.history(e) for e in range(9)]
    for rows, size in ((histories, 5), (histories[:1], 5), (histories, 1), (histories, 3)):
        places, lengths = pad_histories(rows, size)
        mask = (torch.arange(size) < lengths[:, None]).long()
        with torch.no_grad():
            found = user(expected[places], mask)
            wanted = encode_histories(model.user_llm, expected, rows, size + 1)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def written_texts(trained, count=30):
    """Texts of items, without the prompt, which a directory adds by itself."""
    config, inputs, _ = trained
    return read_texts(inputs.interactions.item_ids[:count], config, "")[0]


def test_plain_transformers_reads_the_directory_of_sentence_transformers(exported, trained, model):
    """Tokenizer, model, last token, linear layer: nothing of [ITEM] is left to do."""
    made = exported / "sentence_transformers"
    tokenizer, reads = AutoTokenizer.from_pretrained(made), AutoModel.from_pretrained(made)
    kinds = [module["type"].split(".")[-1] for module in json.loads((made / "modules.json").read_text())]
    pooling = json.loads((made / "1_Pooling/config.json").read_text())
    assert kinds == ["Transformer", "Pooling", "Dense"]
    assert [name for name, chosen in pooling.items() if chosen is True] == [
        "pooling_mode_lasttoken", "include_prompt",
    ]  # fmt: skip
    limit = json.loads((made / "sentence_bert_config.json").read_text())["max_seq_length"]
    dense = torch.from_numpy(load_file(made / "2_Dense/model.safetensors")["linear.weight"])
    expected, cut = embeddings(model, trained[1]), 0
    for n, text in enumerate(written_texts(trained)):
        ids = tokenizer(PROMPT + text, truncation=True, max_length=limit, return_tensors="pt").input_ids
        cut += ids.shape[1] == limit
        with torch.no_grad():
            found = dense @ reads(input_ids=ids).last_hidden_state[0, -1]
        torch.testing.assert_close(found, expected[n], rtol=0, atol=1e-5)
    assert cut > 5 and limit == 13


@pytest.mark.skipif(
    not importlib.util.find_spec("sentence_transformers"), reason="pip install sentence-transformers"
)
def test_sentence_transformers_embeds_as_the_checkpoint_does(exported, trained, model):
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(exported / "sentence_transformers"), device="cpu")
    texts = written_texts(trained)
    found = encoder.encode(texts, batch_size=7)  # some of a batch are padded
    np.testing.assert_allclose(found, embeddings(model, trained[1])[: len(texts)].numpy(), rtol=0, atol=1e-5)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="pip install onnx onnxscript onnxruntime",
)
def test_onnx_gives_the_same(trained, model, tmp_path):
    examples = {"item_embeddings": torch.randn(3, 4, 32), "mask": torch.ones(3, 4).long()}
    tower = towers.UserTower(model)
    with torch.no_grad():
        expected = tower(*examples.values())
    (found,) = towers.export(tower, "user_tower", examples, expected, ("onnx",), tmp_path).items()
    assert found[0] == "user_tower.onnx" and found[1] < 1e-4 and (tmp_path / "user_tower.onnx").is_file()
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "user_tower.onnx")
    other = {"item_embeddings": torch.randn(1, 7, 32), "mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]])}
    (one,) = session.run(None, {name: tensor.numpy() for name, tensor in other.items()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(one), tower(*other.values()), rtol=0, atol=1e-5)


def test_what_differs_is_refused(trained, model):
    with pytest.raises(towers.InputError, match="gives other embeddings than the model itself, by up to 0.5"):
        towers.same("a tower", torch.zeros(2), torch.full((2,), 0.5))
    with pytest.raises(towers.InputError, match="by up to nan"):
        towers.same("a tower", torch.full((2,), torch.nan), torch.zeros(2))


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_padded_text_is_pooled_as_a_packed_one(mode):
    lengths = torch.tensor([3, 1, 5])
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) - 1
    hidden = torch.nn.utils.rnn.pad_sequence(
        rows.split(lengths.tolist()), batch_first=True, padding_value=7.0
    )
    found = towers.pooled(mode, hidden, torch.arange(5) < lengths[:, None])
    torch.testing.assert_close(found, pool(mode, rows, lengths))


def test_a_learned_token_is_read_as_it_was_learned_where_the_lookup_scales(tmp_path):
    """Gemma multiplies what it looks up; and a table may have rows for words that there are not."""
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    for rows, number in ((20, 20), (30, 20)):
        config = Gemma3TextConfig(vocab_size=rows, num_key_value_heads=1, head_dim=8, **sizes)
        backbone, token = AutoModel.from_config(config), torch.randn(16)
        weights = dict(backbone.state_dict())
        sentences.put_row(backbone, weights, number, token)
        grown = AutoModel.from_config(backbone.config)
        grown.load_state_dict(weights)
        found = grown.get_input_embeddings()(torch.tensor([number]))[0]
        torch.testing.assert_close(found, token)
        assert grown.config.vocab_size == max(rows, number + 1)
        assert len(backbone.get_input_embeddings().weight) == rows


def test_the_word_behind_a_text_comes_behind_those_the_tokenizer_adds_itself(demo, tmp_path):
    tokenizer = load_tokenizer(demo / "towers/item_llm")
    (first, last), before = tokenizer.convert_ids_to_tokens([1, 2]), len(tokenizer)
    tokenizer.add_tokens(["[ITEM]"])  # the name is taken
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, 1), (last, 2)]
    )
    number = sentences.append_token(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ids = again("a text of some words", truncation=True, max_length=4).input_ids
    assert number == before + 1 and (ids[0], ids[-2:], len(ids)) == (1, [2, number], 4)
    assert again("").input_ids == [1, 2, number] and again.convert_ids_to_tokens(number) == "[ITEM1]"


def planted(count, width=16, seed=0):
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(count, width)))


def test_recall_is_that_of_sets_and_equals_count_alike():
    vectors, queries = planted(900), planted(50, seed=1)
    truth, index = indexes.Truth(vectors, queries), faiss.IndexPQ(16, 8, 4, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    best, found = np.argsort(-(queries @ vectors.T), axis=1)[:, :100], index.search(queries, 100)[1]
    slow = np.mean([np.isin(a, b).mean() for a, b in zip(found, best, strict=True)])
    assert truth.recall(index) == pytest.approx(slow, abs=1e-9) and 0.2 < slow < 0.99
    twins = np.repeat(planted(5), 60, axis=0)  # of 60 equals an exact list may name any
    truth, backwards = indexes.Truth(twins, queries), faiss.IndexIDMap(faiss.IndexFlatIP(16))
    backwards.add_with_ids(twins[::-1].copy(), np.arange(300)[::-1].copy())
    assert truth.recall(backwards) == 1


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_the_fastest_that_reaches_the_wanted_recall_is_taken(kind):
    vectors, tuning = planted(900), indexes.Truth(planted(900), planted(40, seed=1))
    steps = []
    for settings, index in indexes.LADDERS[kind](vectors, indexes.Sizes(), True):
        steps.append((", ".join(f"{n} {v}" for n, v in settings.items()), tuning.recall(index)))
    assert len(steps) > 2 and steps[-1][1] > steps[0][1] or kind == "hnsw"
    for wanted in (0.3, 0.9):
        first = next((name for name, recall in steps if recall >= wanted), steps[-1][0])
        _, told, reached = indexes.build(kind, vectors, indexes.Sizes(), wanted, tuning)
        assert told == first or kind == "hnsw"  # a graph is another each time on several threads
        assert reached == any(recall >= wanted for _, recall in steps)
    if kind == "ivf":
        assert steps[-1] == ("nlist 23, nprobe 23", 1.0)  # every cell: exact


def test_the_defaults_are_those_of_the_page():
    assert indexes.rungs(1, 10) == [1, 2, 3, 4, 6, 8, 10] and indexes.rungs(100, 100) == [100]
    assert indexes.rungs(100, 400) == [100, 141, 200, 283, 400]
    (settings, _), *_ = indexes.ivf(planted(900), indexes.Sizes(), True)
    assert settings["nlist"] == 900 // 39
    (settings, _), *_ = indexes.pq(planted(900), indexes.Sizes(), True)
    assert settings == {"m": 2, "bits": 4}


def test_what_no_text_makes_is_said_and_left_out(demo_config, tmp_path, capfd):
    config = dataclasses.replace(demo_config, item_id_embedding=True, output_dir=str(tmp_path / "run"))
    write_checkpoint(tmp_path / "run/best_model", config, inputs_of(config))
    flags = {"checkpoint": tmp_path / "run/best_model", "output_dir": tmp_path / "out", "index": "none"}
    command.main(as_flags(flags | {"towers": "none", "cache_dir": config.cache_dir}))
    why = "an item's embedding is that of its text and a vector of its own"
    assert f"sentence_transformers is left out: {why}" in capfd.readouterr().out
    assert json.loads((tmp_path / "out/export.json").read_text())["left_out"] == {
        "sentence_transformers": why
    }
    assert not (tmp_path / "out/sentence_transformers").exists()
