"""The one door into the item LLM: every architecture, every mode, no text sees another."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)  # fmt: skip

from pixelrec_train.batch import PackedTexts
from pixelrec_train.model.backbone import is_causal, load_backbone, write_backbone
from pixelrec_train.model.segments import Segments
from pixelrec_train.model.text_encoder import PADDED_CALLS, TextEncoder

SMALL = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
GQA = SMALL | dict(num_key_value_heads=2, max_position_embeddings=64)
NO_GPT2_DROPOUT = dict(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
CONFIGS = {
    "qwen3": Qwen3Config(**GQA, head_dim=8),
    "qwen2": Qwen2Config(**GQA),
    "llama": LlamaConfig(**GQA),
    "mistral": MistralConfig(**GQA, sliding_window=64),
    "mistral_sliding": MistralConfig(**GQA, sliding_window=4),
    "gemma": GemmaConfig(**GQA, head_dim=8),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, **NO_GPT2_DROPOUT),
    "bert": BertConfig(**SMALL, hidden_dropout_prob=0, attention_probs_dropout_prob=0),
}  # fmt: skip
CAUSAL = [name for name in CONFIGS if name != "bert"]


def encoder(name, item_emb_token_n=1, longest=12):
    torch.manual_seed(0)
    backbone = AutoModel.from_config(copy.deepcopy(CONFIGS[name]))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # far from initialisation, so that a leak would show
    return TextEncoder(backbone, item_emb_token_n, longest)


def texts(lengths=(5, 1, 12, 3, 12, 7, 2), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return PackedTexts(torch.randint(1, 50, (sum(lengths),), generator=generator), torch.tensor(lengths))


def untouched(model):
    """A copy of the transformer without our attention and without hooks."""
    plain = type(model.backbone)(copy.deepcopy(model.backbone.config))
    plain.load_state_dict(model.backbone.state_dict())
    plain.set_attn_implementation("eager")
    return plain.train(model.training)


def one_by_one(model, packed, plain=None):
    """The slow, obvious way: each text alone through the untouched transformer."""
    plain, rows = plain or untouched(model), []
    for i in range(len(packed.lengths)):
        embeds = plain.get_input_embeddings()(packed.part(i, i + 1).token_ids)
        if model.item_token is not None:
            embeds = torch.cat([embeds[:-1], model.item_token[None]])
        hidden = plain(inputs_embeds=embeds[None]).last_hidden_state[0]
        rows.append(hidden[-1] if model.item_token is not None else hidden.mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("token_n", [0, 1])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_embeddings_are_those_of_each_text_alone(name, token_n):
    model, packed = encoder(name, token_n).eval(), texts()
    assert torch.allclose(model(packed), one_by_one(model, packed), atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma"])
def test_the_last_layers_mlp_reads_only_what_is_read_of_it(name):
    """Where embeddings are means of all tokens, it reads them all."""
    for token_n in (0, 1):
        model, packed, rows = encoder(name, token_n), texts(), []
        for layer in model.backbone.layers:
            layer.mlp.down_proj.register_forward_hook(
                lambda m, args, out, rows=rows: rows.append(out.shape[1])
            )
        model(packed)
        tokens = int(packed.lengths.sum())
        assert rows == [*[tokens] * (len(rows) - 1), len(packed.lengths) if token_n else tokens]


def test_plainly_causal_models_are_packed_and_the_others_padded_and_both_say_so():
    ways = {name: encoder(name).packed for name in CONFIGS}
    assert ways["qwen3"] and ways["qwen2"] and ways["llama"] and ways["mistral"] and ways["gemma"]
    assert not ways["bert"] and not ways["mistral_sliding"]
    assert "packed row (Qwen3Model)" in encoder("qwen3").way
    assert (
        "padded by length (MistralModel: its attention slides over 4 tokens" in encoder("mistral_sliding").way
    )


def test_the_way_does_not_depend_on_the_precision_a_checkpoint_is_loaded_in():
    for name in CONFIGS:
        torch.manual_seed(0)
        half = AutoModel.from_config(copy.deepcopy(CONFIGS[name])).bfloat16()
        assert TextEncoder(half, 1, longest=12).packed == encoder(name).packed, name


def test_a_sliding_window_matters_only_where_texts_are_longer():
    assert encoder("mistral_sliding", longest=4).packed
    assert not encoder("mistral_sliding", longest=5).packed


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("use_cache", [False, True])
@torch.no_grad()
def test_an_item_does_not_see_its_neighbour(name, mode, checkpointing, use_cache):
    model = encoder(name)
    model.train(mode == "train")
    if hasattr(model.backbone.config, "use_cache"):
        model.backbone.config.use_cache = use_cache
    if checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    packed = texts()
    before = model(packed)
    changed = packed.token_ids.clone()
    start = int(packed.lengths[:2].sum())
    changed[start : start + 11] = (changed[start : start + 11] + 7) % 49 + 1  # text 2, all but its [ITEM]
    after = model(PackedTexts(changed, packed.lengths))
    moved = (after - before).abs().amax(1)
    assert moved[2] > 1e-3
    assert moved[torch.arange(7) != 2].max() <= 1e-5


@pytest.fixture(scope="module")
def both_ways():
    return [encoder(name, longest=24).eval() for name in ("qwen3", "bert")]  # packed and padded


@given(st.lists(st.integers(1, 24), min_size=1, max_size=12), st.integers(1, 14), st.data())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_whatever_lies_beside_a_text_its_embedding_is_the_same(both_ways, lengths, chunks, data):
    packed = texts(lengths)
    order = data.draw(st.permutations(range(len(lengths))))
    shuffled = [packed.part(i, i + 1) for i in order]
    shuffled = PackedTexts(torch.cat([t.token_ids for t in shuffled]), packed.lengths[list(order)])
    for model in both_ways:
        alone = torch.cat([model(packed.part(i, i + 1)) for i in range(len(lengths))])
        assert torch.allclose(model(packed, chunks), alone, atol=1e-4)
        assert torch.allclose(model(shuffled), alone[list(order)], atol=1e-4)


@pytest.mark.parametrize("checkpointing, chunks", [(False, 1), (True, 1), (False, 2), (False, 9)])
@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_gradients_are_those_of_each_text_alone(name, checkpointing, chunks):
    model, packed = encoder(name).train(), texts()
    weight = torch.randn(7, 32, generator=torch.Generator().manual_seed(3))
    plain = untouched(model)
    (one_by_one_loss := (one_by_one(model, packed, plain) * weight).sum()).backward()
    expected = {f"backbone.{n}": p.grad for n, p in plain.named_parameters() if p.grad is not None}
    expected["item_token"] = model.item_token.grad.clone()
    model.zero_grad()
    if checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    loss = (model(packed, chunks) * weight).sum()
    loss.backward()
    assert loss.item() == pytest.approx(one_by_one_loss.item(), abs=1e-4)
    for n, p in model.named_parameters():
        if n in expected:
            assert torch.allclose(p.grad, expected[n], atol=1e-4, rtol=1e-4), n


def test_a_compiled_tower_gives_the_same_embeddings_and_gradients():
    """Traced as torch.compile traces it; to make code of it is torch's own affair, and takes minutes."""
    results = []
    for compiled in (False, True):
        model = encoder("qwen3").train()
        if compiled:
            model.backbone.compile(dynamic=True, backend="eager")
        for lengths in ((5, 1, 12, 3, 12, 7, 2), (4, 9, 2, 6, 8)):
            out = model(texts(lengths))
            (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append((out.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (plain, expected), (ours, gradients) = results
    assert torch.allclose(ours, plain, atol=1e-5) and gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], atol=1e-4, rtol=1e-4), name


@pytest.mark.parametrize("both, passes", [(True, 3), (False, 2)])
def test_layers_or_chunks_are_recomputed_as_it_is_asked(both, passes):
    """How often a layer reads a chunk but the last, backward pass included; unless cut, layers alone are."""
    model = encoder("qwen3").train()
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    model.layers_of_chunks, calls = both, []
    model.backbone.layers[0].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    packed = texts()
    for chunks, expected in ((1, 2), (3, 2 * passes + (2 if both else 1)), (1, 2)):
        calls.clear()
        model(packed, chunks).sum().backward()
        assert len(calls) == expected


@pytest.mark.parametrize("chunks", [1, 2, 5, 40])
def test_computed_tokens_are_those_the_model_is_called_with(chunks):
    for name in ("qwen3", "bert"):
        model, packed, seen = encoder(name).eval(), texts(), []
        model.backbone.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(kwargs["inputs_embeds"].shape[:2].numel()),
            with_kwargs=True,
        )
        with torch.no_grad():
            model(packed, chunks)
        assert len(seen) == chunks * (1 if name == "qwen3" else PADDED_CALLS)
        if chunks <= 2:  # with more chunks than texts, some read one again, for the count
            assert sum(seen) == model.computed_tokens(packed, chunks)
    assert sum(stop - first for first, stop in packed.bounds(chunks)) == len(packed.lengths)


@pytest.mark.parametrize("name", CONFIGS)
def test_causality_is_measured(name):
    torch.manual_seed(0)
    assert is_causal(AutoModel.from_config(copy.deepcopy(CONFIGS[name]))) == (name in CAUSAL)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_plan_visits_every_token_once_and_puts_it_back(lengths):
    plan = Segments.plan(torch.tensor(lengths), "cpu")
    assert torch.equal(plan.slots[plan.back], torch.arange(sum(lengths)))
    assert plan.position_ids.tolist() == [i for n in lengths for i in range(n)]
    assert plan.last.tolist() == (np.cumsum(lengths) - 1).tolist()
    sizes = [texts * longest for texts, longest in plan.buckets]
    for slots, bucket in zip(plan.slots.split(sizes), plan.buckets, strict=True):
        rows = slots.view(bucket)  # one of a bucket never leaves its text
        text = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[rows]
        assert (text == text[:, :1]).all()


def test_attention_dropout_is_applied_in_training_only():
    model, packed = encoder("qwen3"), texts()
    for layer in model.backbone.layers:
        layer.self_attn.attention_dropout = 0.5
    assert not torch.allclose(model.train()(packed), model(packed))
    assert torch.equal(model.eval()(packed), model(packed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_variable_length_kernel_agrees_with_the_buckets():
    model, packed = encoder("qwen3").eval(), texts()
    expected = model(packed)
    half = model.cuda().bfloat16()(packed.to("cuda")).float().cpu()
    assert torch.nn.functional.cosine_similarity(half, expected, dim=1).min() > 0.999


T5 = dict(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0)


@pytest.mark.parametrize("kind", ["t5", "umt5"])
@pytest.mark.parametrize("item_emb_token_n", [0, 1])
def test_of_an_encoder_decoder_the_encoder_reads_and_comes_back_to_the_bit(tmp_path, kind, item_emb_token_n):
    """Made and saved by transformers as a whole, decoder and all."""
    torch.manual_seed(0)
    whole = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **T5))
    whole.save_pretrained(tmp_path / "whole")
    backbone = load_backbone(tmp_path / "whole", "--item_model_dir").eval()
    model, packed = TextEncoder(backbone, item_emb_token_n, 12).eval(), texts()
    assert not model.packed and backbone.config.hidden_size == 32
    assert not any("decoder" in name for name, _ in backbone.named_parameters())
    encoder_alone, rows = whole.get_encoder().eval(), []
    with torch.no_grad():
        for i in range(len(packed.lengths)):
            embeds = whole.get_input_embeddings()(packed.part(i, i + 1).token_ids)
            if item_emb_token_n:
                embeds = torch.cat([embeds[:-1], model.item_token[None]])
            hidden = encoder_alone(inputs_embeds=embeds[None]).last_hidden_state[0]
            rows.append(hidden[-1] if item_emb_token_n else hidden.mean(0))
        found = model(packed)
        assert torch.allclose(found, torch.stack(rows), atol=1e-5)
        write_backbone(backbone, tmp_path / "out", backbone.state_dict())
        model.backbone = load_backbone(tmp_path / "out", "the checkpoint").eval()
        assert torch.equal(model(packed), found)
    again = dict(model.backbone.named_parameters())
    assert all(torch.equal(again[name], p) for name, p in backbone.named_parameters())
