"""The generative model against the plain causal LM it comes from, and its loss against the dense one."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from pixelrec_train import distributed
from pixelrec_train.batch import PackedTexts, TokenBatch
from pixelrec_train.engine.log_sums import LogSums
from pixelrec_train.engine.optim import decay_groups
from pixelrec_train.errors import InputError
from pixelrec_train.losses.cross_entropy import summed_cross_entropy, token_cross_entropy
from pixelrec_train.model.cpu_layers import has_onednn
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.model_files import write_like
from pixelrec_train.model.split_rows import look_up
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.tasks.tokens import TokenTask

SIZES = (4, 6)
Granite, Gemma2 = (GraniteConfig, GraniteForCausalLM), (Gemma2Config, Gemma2ForCausalLM)
LENGTHS = (7, 1, 12, 5)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """{tied: directory} of two tiny Qwen3 with itemic tokens."""
    folder = tmp_path_factory.mktemp("itemic")
    made = {}
    for tied in (True, False):
        base = write_causal_lm(
            ["a tale of two cities"] * 3, folder / f"base{tied}", hidden_size=32, tied=tied
        )
        expand(base, folder / f"tied{tied}", "onerec", SIZES, "mean_cov", 0)
        made[tied] = folder / f"tied{tied}"
    return made


def plain_directory(directories, tied):
    """Of the model without itemic tokens."""
    return directories[tied].with_name(f"base{tied}")


def batch_of(model, lengths=LENGTHS, seed=0):
    """Random texts, half of it itemic where it can be; every third position is to be predicted."""
    generator, stop = torch.Generator().manual_seed(seed), model.num_tokens
    low = (model.vocabulary.first_new_id if model.vocabulary else stop) - 20
    ids = torch.randint(low, stop, (sum(lengths),), generator=generator)
    positions = torch.arange(0, sum(lengths), 3)
    labels = torch.randint(low, stop, (len(positions),), generator=generator)
    return TokenBatch(PackedTexts(ids, torch.tensor(lengths)), positions, labels, {})


@pytest.mark.parametrize("tied", [True, False])
def test_packed_texts_give_the_logits_of_each_text_alone(directories, tied):
    model = TokenModel.load(directories[tied])
    plain = AutoModelForCausalLM.from_pretrained(directories[tied]).eval()
    texts, stop = batch_of(model).texts, model.vocabulary.tokenizer_length
    with torch.no_grad():
        ours = model.logits(model.read(texts))
        alone = [plain(ids[None]).logits[0] for ids in texts.token_ids.split(texts.lengths.tolist())]
    assert torch.allclose(ours[:, :stop], torch.cat(alone)[:, :stop], atol=1e-5)
    assert ours.shape[1] == model.vocabulary.rows and (ours[:, stop:] == -torch.inf).all()


def test_read_step_by_step_with_a_cache_a_text_gets_the_same_logits(directories):
    model = TokenModel.load(directories[True])
    ids = batch_of(model).texts.token_ids[:10]
    with torch.no_grad():
        packed = model.read(PackedTexts(ids, torch.tensor([10])))
        with model.decoding():
            cache, hidden = None, []
            for part in ids[None].split([6, 1, 1, 2], dim=1):
                embeddings = model.embedding(look_up, part)
                out = model.backbone(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                hidden.append(out.last_hidden_state[0])
        again = model.read(PackedTexts(ids, torch.tensor([10])))
    assert torch.allclose(torch.cat(hidden), packed, atol=1e-5) and torch.equal(packed, again)


@torch.no_grad()
def test_only_a_model_that_stands_still_keeps_its_rows_for_decoding(directories):
    model = TokenModel.load(directories[False])
    hidden, norms, kept = torch.randn(2, 5, model.backbone.config.hidden_size), [], []
    for stand in (lambda: model, model.stand_still, lambda: model):
        with stand().decoding() as decoder:
            norms.append(decoder.log_norm(hidden))
        kept.append(model.packed and model.packed.made[1])
    expected = model.logits(hidden.flatten(0, 1)).double().logsumexp(-1).unflatten(0, (2, 5))
    for norm in norms:
        torch.testing.assert_close(norm, expected.float(), rtol=0, atol=1e-5)
    assert kept[0] is None and kept[1] is kept[2] and bool(kept[1]) == has_onednn()
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("chunk", [1, 7, 29, 30])
def test_the_chunked_loss_and_its_gradients_are_the_dense_ones(chunk):
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator).requires_grad_()

    hidden, tables = drawn(29, 16), (drawn(50, 16), drawn(13, 16))
    labels = torch.randint(0, 63, (29,), generator=generator)
    logits = hidden @ torch.cat(tables).T
    dense = F.cross_entropy(logits, labels, reduction="none")
    expected = torch.autograd.grad(dense.sum() * 0.3, (hidden, *tables))
    total, losses, best = summed_cross_entropy(hidden, labels, tables, chunk)
    found = torch.autograd.grad(total * 0.3, (hidden, *tables))
    assert torch.allclose(losses, dense, atol=1e-5) and torch.equal(best, logits.argmax(-1))
    assert total.item() == pytest.approx(dense.sum().item(), rel=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def drawn_case(dtype=torch.float32, labels=29):
    """(hidden, tables, labels, a number for each label)"""
    generator = torch.Generator().manual_seed(1)
    hidden, *tables = (
        torch.randn(n, 16, generator=generator).to(dtype).requires_grad_() for n in (labels, 50, 13)
    )
    numbers = torch.randn(labels, generator=generator)
    return hidden, tables, torch.randint(0, 63, (labels,), generator=generator), numbers


@pytest.mark.parametrize("chunk", [1, 7, 30])
def test_weights_that_are_known_beforehand_weigh_losses_and_gradients(chunk):
    hidden, tables, labels, weights = drawn_case()
    weights[3] = 0.0
    dense = F.cross_entropy(hidden @ torch.cat(tables).T, labels, reduction="none")
    total, losses, best = summed_cross_entropy(hidden, labels, tables, chunk, weights)
    assert total.item() == pytest.approx((weights * dense).sum().item(), rel=1e-5)
    assert torch.allclose(losses, dense, atol=1e-5) and not losses.requires_grad
    found = torch.autograd.grad(total * 0.3, (hidden, *tables))
    expected = torch.autograd.grad((weights * dense).sum() * 0.3, (hidden, *tables))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_weights_of_one_change_no_bit():
    for dtype in (torch.float32, torch.bfloat16):
        hidden, tables, labels, _ = drawn_case(dtype)
        found = []
        for weights in (None, torch.ones(len(labels))):
            total, losses, _ = summed_cross_entropy(hidden, labels, tables, 7, weights)
            found.append([total, losses, *torch.autograd.grad(total, (hidden, *tables))])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), dtype


@pytest.mark.parametrize("chunk", [1, 7, 30])
def test_each_labels_loss_has_its_gradient_whatever_is_made_of_it(chunk):
    """Preferences: how much likelier the first twelve labels are than the others, through a sigmoid."""

    def objective(losses):
        return -F.logsigmoid(0.1 * (losses[12:].sum() - losses[:12].sum())) + losses.square().mean()

    hidden, tables, labels, _ = drawn_case()
    dense = F.cross_entropy(hidden @ torch.cat(tables).T, labels, reduction="none")
    losses, best = token_cross_entropy(hidden, labels, tables, chunk)
    assert torch.allclose(losses, dense, atol=1e-5)
    assert torch.equal(best, (hidden @ torch.cat(tables).T).argmax(-1))
    found = torch.autograd.grad(objective(losses), (hidden, *tables))
    for ours, theirs in zip(found, torch.autograd.grad(objective(dense), (hidden, *tables)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_added_up_the_losses_of_single_labels_have_the_sums_gradients_to_the_bit():
    for dtype in (torch.float32, torch.bfloat16):
        for labels in (29, 0):
            hidden, tables, wanted, _ = drawn_case(dtype, labels)
            total, losses, _ = summed_cross_entropy(hidden, wanted, tables, 7)
            each, _ = token_cross_entropy(hidden, wanted, tables, 7)
            assert torch.equal(each, losses) and torch.equal(each.sum(), total)
            pairs = (torch.autograd.grad(x, (hidden, *tables)) for x in (total, each.sum()))
            assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_in_half_precision_the_gradients_are_those_of_full_precision_rounded():
    generator = torch.Generator().manual_seed(1)
    hidden, table = (torch.randn(n, 16, generator=generator).bfloat16().requires_grad_() for n in (29, 50))
    labels = torch.randint(0, 50, (29,), generator=generator)
    found = torch.autograd.grad(summed_cross_entropy(hidden, labels, (table,), 4)[0], (hidden, table))
    dense = F.cross_entropy(hidden.float() @ table.float().T, labels, reduction="sum")
    for ours, theirs in zip(found, torch.autograd.grad(dense, (hidden, table)), strict=True):
        assert ours.dtype == torch.bfloat16 and torch.allclose(ours.float(), theirs.float(), atol=0.05)


class Largest(TorchDispatchMode):
    """The most elements of any tensor an operation gives."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("chunk", [2, 50])
@pytest.mark.parametrize("loss", [summed_cross_entropy, lambda *x: [token_cross_entropy(*x)[0].sum()]])
def test_no_tensor_is_larger_than_the_scores_of_one_chunk(chunk, loss):
    labels, width, rows = 400, 4, 1000
    hidden = torch.randn(labels, width, requires_grad=True)
    table = torch.randn(rows, width, requires_grad=True)
    with Largest() as largest:
        loss(hidden, torch.arange(labels), (table,), chunk)[0].backward()
    assert largest.elements == max(chunk * rows, rows * width)


def test_a_frozen_table_gets_no_gradient_and_costs_none():
    hidden, new = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    old, labels = torch.randn(1000, 4), torch.tensor([1, 999, 1001])
    with Largest() as largest:
        summed_cross_entropy(hidden, labels, (old, new), 1)[0].backward()
        token_cross_entropy(hidden, labels, (old, new), 1)[0].sum().backward()
    assert old.grad is None and new.grad is not None and largest.elements <= 4 * 1002


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("itemic", [True, False])
def test_the_models_loss_and_gradients_are_those_of_plain_transformers(directories, tied, itemic):
    directory = directories[tied] if itemic else plain_directory(directories, tied)
    model = TokenModel.load(directory, chunk=3)
    plain = AutoModelForCausalLM.from_pretrained(directory)
    batch, stop = batch_of(model), model.num_tokens
    loss, metrics = TokenTask(model, directory)(batch)
    loss.backward()
    assert ("level1_loss" in metrics) == itemic
    alone = [plain(ids[None]).logits[0] for ids in batch.texts.token_ids.split(list(LENGTHS))]
    dense = F.cross_entropy(torch.cat(alone)[batch.positions][:, :stop], batch.labels)
    dense.backward()
    assert loss.item() == pytest.approx(dense.item(), rel=1e-5)
    theirs = dict(plain.named_parameters())
    for name, parameter in model.backbone.named_parameters():
        assert torch.allclose(parameter.grad, theirs[f"model.{name}"].grad, atol=1e-5), name
    names = {"embedding": "model.embed_tokens.weight"} | ({} if tied else {"head": "lm_head.weight"})
    for part, name in names.items():
        rows = getattr(model, part)
        ours = torch.cat([p.grad for p in rows.parameters()])
        assert len(list(rows.parameters())) == 1 + itemic
        assert torch.allclose(ours, theirs[name].grad[:stop], atol=1e-5), name


def test_recomputing_activations_changes_nothing(directories):
    losses = []
    for recompute in (False, True):
        model = TokenModel.load(directories[True]).train()
        model.train_new_rows_only()
        if recompute:
            model.enable_checkpointing()
        loss, _ = TokenTask(model, None)(batch_of(model))
        loss.backward()
        losses.append((loss.item(), model.embedding.new_rows.grad))
    assert losses[0][0] == losses[1][0] and torch.equal(losses[0][1], losses[1][1])


def test_what_all_ranks_count_is_exchanged_while_the_model_reads(directories, monkeypatch):
    """Two ranks, of which the other has three times as many labels."""
    model, events = TokenModel.load(directories[True]), []

    def coming_mean(count):
        events.append("begun")
        return lambda: events.append("wanted") or 2 * count

    task, batch = TokenTask(model, None), batch_of(model)
    alone = task(batch)[0]
    monkeypatch.setattr(distributed, "coming_mean", coming_mean)
    model.backbone.register_forward_hook(lambda *_: events.append("read"))
    assert torch.equal(task(batch)[0], alone / 2) and events == ["begun", "read", "wanted"]


def test_without_labels_the_loss_is_zero_and_reaches_every_parameter(directories):
    model = TokenModel.load(directories[False])
    full = batch_of(model)
    none = torch.zeros(0, dtype=torch.long)
    loss, metrics = TokenTask(model, None)(TokenBatch(full.texts, none, none, {}))
    loss.backward()
    assert loss.item() == 0 and all(count == 0 for _, count in metrics.values())
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_metrics_are_by_label_and_over_all_labels_of_the_window(directories):
    model = TokenModel.load(directories[True]).eval()
    v, window = model.vocabulary, LogSums()
    sums = {}
    for seed in (0, 1):
        batch = batch_of(model, seed=seed)
        with torch.no_grad():
            loss, metrics = TokenTask(model, None)(batch)
            logits = model.logits(model.read(batch.texts)[batch.positions])
        window.add(loss, metrics, batch, True)
        for row, label in zip(logits, batch.labels.tolist(), strict=True):
            nats, right = F.cross_entropy(row, torch.tensor(label)).item(), float(row.argmax() == label)
            first, last = zip(*v.level_ranges, strict=True)
            names = ["itemic_loss" if label >= v.first_new_id else "text_loss"]
            for n in range(2):
                names += [f"level{n + 1}_loss", f"level{n + 1}_top1"] * (first[n] <= label <= last[n])
            for name in names:
                total, count = sums.get(name, (0, 0))
                sums[name] = total + (right if "top1" in name else nats), count + 1
    report = window.close()
    assert len(sums) == 6
    for name, (total, count) in sums.items():
        assert report[name] == pytest.approx(total / count, rel=1e-5), name


def test_a_metric_without_labels_is_left_out_and_none_is_divided_by_zero():
    batch = TokenBatch(PackedTexts(torch.zeros(1), torch.ones(1)), None, None, {})
    window = LogSums()
    window.add(torch.tensor(1.0), {"a": (torch.zeros(()), torch.zeros(())), "b": 2.0}, batch, True)
    report = LogSums.from_dict(window.as_dict()).close()
    assert "a" not in report and report["b"] == 2 and not any("/" in name for name in report)


def test_in_stage_one_only_new_rows_are_in_the_optimizer(directories):
    model = TokenModel.load(directories[False])
    model.train_new_rows_only()
    (matrices,) = decay_groups(model, 0.1)  # no empty group for vectors: DeepSpeed fails on those
    new = model.vocabulary.tokenizer_length - model.vocabulary.first_new_id
    assert [len(p) for p in matrices["params"]] == [new, new]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_export_is_a_plain_model_that_computes_the_same(directories, tmp_path, tied, dtype):
    model = TokenModel.load(directories[tied])
    with torch.no_grad():
        for rows in (model.embedding, model.head):
            if rows is not None:
                rows.new_rows.add_(0.1)
    model.to(dtype)
    state = {name: p.detach() for name, p in model.named_parameters()}
    model.export(tmp_path / "out", state, directories[tied])
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert plain.dtype == dtype and plain.config.tie_word_embeddings == tied
    again = TokenModel.load(tmp_path / "out", dtype="auto")
    before = AutoModelForCausalLM.from_pretrained(directories[tied]).to(dtype).state_dict()
    first, stop = model.vocabulary.first_new_id, model.vocabulary.tokenizer_length
    assert all(torch.equal(p, dict(again.named_parameters())[name]) for name, p in state.items())
    for name, after in plain.state_dict().items():
        if len(after) == model.vocabulary.rows:
            assert torch.equal(after[stop:], before[name][stop:]) and not torch.equal(after, before[name])
            after, before[name] = after[:first], before[name][:first]
        assert torch.equal(after, before[name]), name


@pytest.mark.parametrize(
    "kind, own, sentence",
    [
        (Granite, {"logits_scaling": 3.0}, "its own logits differ from a softmax over its tables"),
        (
            Gemma2,
            {"head_dim": 32, "num_key_value_heads": 1},
            "its embeddings or its head are not a plain table",
        ),
    ],
)
def test_a_model_that_does_more_than_a_softmax_over_its_table_is_refused(
    directories, tmp_path, kind, own, sentence
):
    """Trained without what it does besides, the export would be another model."""
    config_class, model_class = kind
    config = json.loads((directories[True] / "config.json").read_text())
    names = ("hidden_size", "vocab_size", "tie_word_embeddings", "num_hidden_layers", "num_attention_heads")
    model = model_class(config_class(**{name: config[name] for name in names}, intermediate_size=64, **own))
    write_like(directories[True], tmp_path / "m", {"x": torch.zeros(1)}, model_class.__name__)
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(InputError, match=sentence):
        TokenModel.load(tmp_path / "m")


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_without_itemic_tokens_is_one_table_and_exported_as_it_came(directories, tmp_path, tied):
    """Rows behind the tokenizer's last word are never predicted, and come back as they were."""
    source = plain_directory(directories, tied)
    model = TokenModel.load(source)
    rows = len(model.embedding.old_rows) + len(model.rest)
    assert model.vocabulary is None and model.num_tokens < rows
    assert not any("new_rows" in name for name, _ in model.named_parameters())
    with torch.no_grad():
        batch = batch_of(model)
        ours = model.logits(model.read(batch.texts))
        plain = AutoModelForCausalLM.from_pretrained(source).eval()
        alone = [plain(ids[None]).logits[0] for ids in batch.texts.token_ids.split(list(LENGTHS))]
    known = slice(None, model.num_tokens)
    assert torch.allclose(ours[:, known], torch.cat(alone)[:, known], atol=1e-5)
    assert (ours[:, model.num_tokens :] == -torch.inf).all() and ours.shape[1] == rows
    task = TokenTask(model, source)
    task.export(tmp_path, {name: p.detach() for name, p in task.named_parameters()})
    assert [path.name for path in tmp_path.iterdir()] == ["llm"]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "llm").state_dict()
    assert again.keys() == plain.state_dict().keys()
    assert all(torch.equal(again[name], x) for name, x in plain.state_dict().items())


def test_a_batchs_weights_weigh_its_labels_and_the_mean_is_over_the_weight(directories):
    model = TokenModel.load(directories[True], chunk=3)
    batch, task = batch_of(model), TokenTask(model, directories[True])
    weights = torch.rand(len(batch.labels), generator=torch.Generator().manual_seed(0))
    weighted, metrics = task(dataclasses.replace(batch, weights=weights))
    losses, best = model.token_losses(batch)
    mean = (losses * weights).sum() / weights.sum()
    assert weighted.item() == pytest.approx(mean.item(), rel=1e-6)
    parameters = list(model.parameters())
    pairs = (torch.autograd.grad(loss, parameters) for loss in (weighted, mean))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*pairs, strict=True))
    plain, same = task(batch)
    assert plain.item() == pytest.approx(losses.mean().item(), rel=1e-6) != weighted.item()
    assert all(torch.equal(metrics[name][0], same[name][0]) for name in same)
