"""Saying the next token: codes of the next item's semantic id, what items are called, or any text."""

import shutil
from functools import cached_property
from pathlib import Path

import torch

from pixelrec_train import distributed
from pixelrec_train.engine.task import RANKED, Objective, Task
from pixelrec_train.engine.zero import shape_of, size_of
from pixelrec_train.files import tokenizer_files
from pixelrec_train.model.adapters import entries

SEMANTIC_IDS = "semantic_ids.json"
LLM, ADAPTER = "llm", "adapter"
FALLING = ("valid_loss", "perplexity")
OTHERS = (*FALLING, *(way + name for way in ("", "sid_", "average_") for name in RANKED))


class TokenTask(Task):
    """model + loss; task(batch) -> (loss, metrics). The loop knows nothing else."""

    objective = Objective(
        shown={"itemic_loss": ".4f", "text_loss": ".4f"} | {f"level{n}_top1": ".3f" for n in (1, 2, 3)},
        judged=(*FALLING, "recall@10", "ndcg@10"),
        panels={
            "loss (nats)": ("loss", "itemic_loss", "text_loss", "valid_loss"),
            "right codes": tuple(f"level{n}_top1" for n in (1, 2, 3, 4)),
            "validation": ("recall@10", "ndcg@10"),
        },
        best_by="ndcg@10",
        others=OTHERS,
        falling=FALLING,
    )

    def __init__(
        self, model, model_dir, semantic_ids=None, objective=None, sources=(), itemic_ids=None,
        beside=None,
    ):  # fmt: skip
        """
        Args:
            model: TokenModel.
            model_dir: the directory it came from, see its export.
            semantic_ids: file that says what its itemic tokens mean; None where it has none.
            objective: what is measured, if not the ranking of a catalogue; see of_samples.
            sources: names; the losses of labels are given for each of them, see TokenBatch.sources.
            itemic_ids: (first, last) token id of the itemic ones, where the vocabulary does not say it.
            beside: {name: text} of files that an export has besides, or otherwise than model_dir.
        """
        super().__init__()
        self.model, self.source, self.semantic_ids = model, model_dir, semantic_ids
        self.sources, self.levels, self.beside = tuple(sources), 0, beside or {}
        if objective:
            self.objective = objective
        edges = [itemic_ids[0], itemic_ids[1] + 1] if itemic_ids else []
        if model.vocabulary:
            edges, self.levels = model.vocabulary.level_edges, model.vocabulary.levels
        self.register_buffer("level_edges", torch.tensor(edges, dtype=torch.long), persistent=False)

    def forward(self, batch):
        """(loss, metrics): mean cross-entropy in nats, by weight, of all labels of all ranks.

        DeepSpeed averages gradients over ranks; divided by the mean weight of the labels per rank, that
        average is the mean over all labels. Metrics are (sum, count) of this rank, see `by_label` and
        `by_source`, and the batch's own.
        """
        weight = distributed.coming_mean(labels_in(batch))
        total, losses, best = self.model(batch)
        metrics = self.by_label(batch.labels, losses, best) | batch.figures
        if self.sources:
            metrics |= self.by_source(batch.sources, losses, best == batch.labels)
        return distributed.over_all(total, weight), metrics

    def by_label(self, labels, losses, best):
        """{name: (sum, count)} by what the label is, not by what stands before it; weights play no part.

        text_loss: of the base model's words; itemic_loss: of codes, begin and end; level{n}_loss: of the
        codes of level n, from 1: in nats; text_top1 and so on: share whose score is the highest of all.
        """
        kind = torch.bucketize(labels, self.level_edges, right=True)  # 0 text, 1 … L levels, L + 1 begin, end
        sums = sums_of(kind, len(self.level_edges) + 1, losses, best == labels)
        kinds = {"text": sums[:, 0], "itemic": sums[:, 1:].sum(1)}
        return figures_of(kinds | {f"level{n}": sums[:, n] for n in range(1, self.levels + 1)})

    def by_source(self, sources, losses, right):
        """{"video_rec/loss": (sum, count), "video_rec/top1": …}: loss in nats and share found, as by_label.

        sources: [N] numbers of the labels' sources.
        """
        sums = sums_of(sources, len(self.sources), losses, right)
        return figures_of({name: sums[:, n] for n, name in enumerate(self.sources)}, "/")

    def export(self, directory, tensors):
        """llm/: a causal LM that plain transformers loads, adapters merged into it; adapter/: these alone, as
        peft loads them; semantic_ids.json: what its itemic tokens mean."""
        inner = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        self.model.export(Path(directory) / LLM, inner, self.source)
        self.model.export_adapter(Path(directory) / ADAPTER, inner, self.source)
        folders = [folder for name in (LLM, ADAPTER) if (folder := Path(directory, name)).is_dir()]
        for folder in folders[1:]:
            for file in tokenizer_files(folders[0]):
                shutil.copy(file, folder)
        for folder in folders:
            for name, text in self.beside.items():
                (folder / name).write_text(text, encoding="utf-8")
        if self.semantic_ids:
            shutil.copy(self.semantic_ids, Path(directory) / SEMANTIC_IDS)

    def weight(self, batch):
        return float(len(batch.labels) if batch.weights is None else batch.weights.sum())

    def flops(self, batch):
        """Floating-point operations of a training step on it; what is computed again to save memory is none.

        2 for every weight and token forward; as many for the gradient of what it reads, where that needs one;
        as many for the weight's own. Attention is causal.
        """
        config, (weights, trained) = self.model.backbone.config, self.weights
        tokens, labels = len(batch.texts.token_ids), len(batch.labels)
        head = self.model.num_tokens * config.hidden_size * labels
        pairs = int((batch.texts.lengths.double() ** 2).sum()) // 2
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = 2 * pairs * width * config.num_attention_heads * config.num_hidden_layers
        return 2 * tokens * (2 * weights + trained) + 6 * head + 6 * attention

    @cached_property
    def weights(self):
        """Entries of the backbone's matrices: of all, and of those that are trained."""
        matrices = [p for p in self.model.backbone.parameters() if len(shape_of(p)) >= 2]
        sizes = [(entries(p, size_of(p)), p.requires_grad) for p in matrices]
        return sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)


def labels_in(batch):
    """Labels of a TokenBatch by weight, fp32, on its device."""
    if batch.weights is not None:
        return batch.weights.sum()
    return torch.full((), float(len(batch.labels)), device=batch.labels.device)


def sums_of(group, groups, losses, right):
    """[N] groups of labels, their losses, whether they were found -> [3, groups] counts, losses, found."""
    each = torch.stack([torch.ones_like(losses), losses, right.float()])
    return each.new_zeros(3, groups).index_add_(1, group, each)


def figures_of(sums, mark="_"):
    """{name: [count, loss, right]} -> {name_loss: (sum, count), name_top1: (sum, count)}"""
    pairs = {}
    for name, (count, loss, right) in sums.items():
        pairs |= {f"{name}{mark}loss": (loss, count), f"{name}{mark}top1": (right, count)}
    return pairs


def of_samples(sources, by_source, ranked):
    """The objective of training on samples: their loss, and that of held-out ones.

    Args:
        sources: their names.
        by_source: whether the log line shows each of them.
        ranked: whether held-out users are judged too, and by their figures best_model is chosen.
    """
    losses = tuple(f"{name}/loss" for name in sources)
    return Objective(
        shown={"itemic_loss": ".4f", "text_loss": ".4f", "itemic_top1": ".3f", "text_top1": ".3f"}
        | (dict.fromkeys(losses, ".4f") if by_source else {})
        | {"fill": ".3f"},
        judged=(*FALLING, "recall@10", "ndcg@10") if ranked else FALLING,
        panels={
            "loss (nats)": ("loss", "itemic_loss", "text_loss", "valid_loss"),
            "right tokens": ("itemic_top1", "text_top1"),
            "loss by source": losses,
            "validation": ("recall@10", "ndcg@10"),
        },
        best_by="ndcg@10" if ranked else "valid_loss",
        others=OTHERS,
        falling=FALLING,
    )
