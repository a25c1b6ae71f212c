"""A causal LM with itemic tokens: reads packed texts, predicts the tokens that are asked for.

The rows of itemic tokens are Parameters of their own, so that they can be trained alone: no gradient is
masked and nothing restored after a step, and the optimizer holds no moments of rows that stand still.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pixelrec_train import distributed
from pixelrec_train.batch import ItemicBatch, PackedTexts
from pixelrec_train.errors import InputError
from pixelrec_train.losses.cross_entropy import score, token_cross_entropy
from pixelrec_train.model import packed_attention
from pixelrec_train.model.backbone import load_backbone
from pixelrec_train.model.decoding import ROWS_PER_BLOCK, Decoder, is_windowed
from pixelrec_train.model.expansion import table_names
from pixelrec_train.model.model_files import write_like
from pixelrec_train.model.packed_attention import Segments
from pixelrec_train.model.vocabulary import ItemicVocabulary


class SplitRows(nn.Module):
    """One table in two Parameters: the rows of the base model's words, and those of the new tokens."""

    def __init__(self, weight: Tensor, first_new: int, stop: int):
        super().__init__()
        self.old_rows = nn.Parameter(weight[:first_new].detach().clone())
        self.new_rows = nn.Parameter(weight[first_new:stop].detach().clone())

    def forward(self, use, *inputs):
        """use(*inputs, old_rows, new_rows). Whoever reads the rows does it in here: elsewhere ZeRO-3 has cut
        them to shards."""
        return use(*inputs, self.old_rows, self.new_rows)


def look_up(token_ids, old_rows, new_rows):
    """[…] ids -> […, D]"""
    is_new = token_ids >= len(old_rows)
    old = F.embedding(token_ids.masked_fill(is_new, 0), old_rows)
    new = F.embedding((token_ids - len(old_rows)).clamp(min=0), new_rows)
    return torch.where(is_new[..., None], new, old)


def score_some(hidden, token_ids, old_rows, new_rows):
    """[..., D], [n] ids of new tokens -> [..., n]"""
    return F.linear(hidden, new_rows[token_ids - len(old_rows)])


def log_norm(hidden, tables):
    """[..., D] -> [...] log of the summed exp of the scores of all tokens, a block of rows at a time."""
    blocks = [block for table in tables for block in table.split(ROWS_PER_BLOCK)]
    parts = [F.linear(hidden, block).float().logsumexp(-1) for block in blocks]
    return torch.stack(parts).logsumexp(0)


class GenerativeModel(nn.Module):
    """The transformer without its tables, and the tables, split. Where they are tied there is only one."""

    def __init__(self, causal_lm: nn.Module, vocabulary: ItemicVocabulary, chunk: int):
        """chunk: labels scored at a time."""
        super().__init__()
        self.vocabulary, self.chunk, self.dropout = vocabulary, chunk, 0.0
        self.architecture, self.prefix = type(causal_lm).__name__, f"{causal_lm.base_model_prefix}."
        self.table_names = table_names(causal_lm, "the model")
        cut = vocabulary.first_new_id, vocabulary.tokenizer_length
        table, head = (x().weight for x in (causal_lm.get_input_embeddings, causal_lm.get_output_embeddings))
        self.embedding = SplitRows(table, *cut)
        self.head = None if head is table else SplitRows(head, *cut)
        # Rows that are no token: never read, never predicted, written back as they came.
        for name, weight in (("rest", table), ("rest_of_head", head)):
            self.register_buffer(name, weight[cut[1] :].detach().clone(), persistent=False)
        self.register_buffer("level_edges", torch.tensor(vocabulary.level_edges), persistent=False)
        self.backbone = causal_lm.base_model
        self.backbone.set_input_embeddings(nn.Identity())  # it is given embeddings, not ids
        self.own_attention = self.backbone.config._attn_implementation
        self.backbone.set_attn_implementation(packed_attention.NAME)

    @staticmethod
    def load(directory, flag_name="--model_dir", chunk=512, dtype=torch.float32, trust=False):
        """Of a directory that scripts/expand_vocabulary.py made, or an export.

        Args:
            dtype: "auto" = as in the files.
            trust: whether code in the directory may run.

        Raises:
            InputError: no itemic tokens in it, or it computes otherwise than as a plain causal LM.
        """
        vocabulary = ItemicVocabulary.load(directory, flag_name, trust)
        causal_lm = load_backbone(directory, flag_name, dtype, trust=trust, kind=AutoModelForCausalLM).eval()
        # Two texts of words and itemic tokens, as its own forward pass reads them and as ours does.
        ids = torch.arange(vocabulary.first_new_id - 4, vocabulary.first_new_id + 4)
        lengths = torch.tensor([3, 5])
        try:
            with torch.no_grad():
                theirs = torch.cat([causal_lm(part[None]).logits[0] for part in ids.split(lengths.tolist())])
                model = GenerativeModel(causal_lm, vocabulary, chunk).eval()
                ours = model.logits(model.read(PackedTexts(ids, lengths)))
            known, theirs = slice(None, vocabulary.tokenizer_length), theirs.float()
            difference = (ours - theirs)[:, known].abs().max() / theirs[:, known].abs().max()
            why = f"its own logits differ from a softmax over its tables by {difference:.1%}"
            plain = difference < (1e-3 if dtype == torch.float32 else 5e-2)
        except (NotImplementedError, TypeError, ValueError) as error:
            plain, why = False, str(error)
        if not plain:
            kind = type(causal_lm).__name__
            raise InputError(
                f"{flag_name} {directory} ({kind}) cannot be trained here as a causal LM: {why}."
            )
        return model

    def forward(self, batch: ItemicBatch):
        """(loss, metrics): cross-entropy in nats, of all labels of all ranks every one weighing the same.

        DeepSpeed averages gradients over ranks; divided by the mean number of labels per rank, that average
        is the mean over all labels. Metrics are (sum, count) of this rank, see `by_label`.
        """
        hidden = self.read(batch.texts)[batch.positions]
        total, losses, best = self.output_rows(self.cross_entropy, hidden, batch.labels)
        count = distributed.mean_tensor(torch.tensor(float(len(batch.labels)), device=hidden.device))
        return total / torch.where(count > 0, count, 1.0), self.by_label(batch.labels, losses, best)

    def read(self, texts: PackedTexts) -> Tensor:
        """Texts -> [T, D] final hidden states; none sees another."""
        segments = Segments.plan(texts.lengths, texts.token_ids.device)
        embeddings = F.dropout(self.embedding(look_up, texts.token_ids), self.dropout, self.training)
        out = self.backbone(
            inputs_embeds=embeddings[None], position_ids=segments.position_ids[None], segments=segments,
            use_cache=False,
        )  # fmt: skip
        return F.dropout(out.last_hidden_state[0], self.dropout, self.training)

    @contextmanager
    def reading_step_by_step(self):
        """In here the backbone attends as transformers has it, with masks and a key-value cache: to decode.

        self.backbone(inputs_embeds=self.embedding(look_up, token_ids), past_key_values=…, use_cache=True)
        """
        self.backbone.set_attn_implementation(self.own_attention)
        try:
            yield
        finally:
            self.backbone.set_attn_implementation(packed_attention.NAME)

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """[n, D] -> [n, rows] in fp32, without gradient; -inf where a row is no token."""
        known = self.output_rows(lambda hidden, *rows: score(hidden, rows), hidden)
        return F.pad(known, (0, len(self.rest)), value=-torch.inf)

    @contextmanager
    def decoding(self):
        """A Decoder of this model for beam_search, as long as this lasts."""
        config = self.backbone.config
        with self.reading_step_by_step():
            yield Decoder(
                embed=lambda ids: self.embedding(look_up, ids.flatten()).unflatten(0, ids.shape),
                backbone=self.backbone,
                head=lambda hidden, ids: self.output_rows(lambda *rows: score_some(hidden, ids, *rows)),
                log_norm=lambda hidden: self.output_rows(lambda *rows: log_norm(hidden, rows)),
                window=getattr(config, "sliding_window", None) if is_windowed(config) else None,
            )

    @property
    def output_rows(self):
        return self.embedding if self.head is None else self.head

    def cross_entropy(self, hidden, labels, *rows):
        return token_cross_entropy(hidden, labels, rows, self.chunk)

    def by_label(self, labels, losses, best):
        """{name: (sum, count)} by what the label is, not by what stands before it.

        text_loss: of the base model's words; itemic_loss: of codes, begin and end; level{n}_loss and
        level{n}_top1: of the codes of level n, from 1: loss in nats, share whose score is the highest of all.
        """
        kind = torch.bucketize(labels, self.level_edges, right=True)  # 0 text, 1 … L levels, L + 1 begin, end
        each = torch.stack([torch.ones_like(losses), losses, (best == labels).float()])
        sums = each.new_zeros(3, self.vocabulary.levels + 2).index_add_(1, kind, each)
        (count, loss, right), itemic = sums, sums[:, 1:].sum(1)
        metrics = {"text_loss": (loss[0], count[0]), "itemic_loss": (itemic[1], itemic[0])}
        for n in range(1, self.vocabulary.levels + 1):
            metrics |= {f"level{n}_loss": (loss[n], count[n]), f"level{n}_top1": (right[n], count[n])}
        return metrics

    def train_new_rows_only(self):
        """Stage 1: everything the base model brought stands still."""
        self.requires_grad_(False)
        for rows in (self.embedding, self.head):
            if rows is not None:
                rows.new_rows.requires_grad_(True)

    def enable_checkpointing(self):
        """Recompute activations layer by layer in the backward pass; non-reentrant, as ZeRO needs it."""
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def export(self, directory, tensors, source):
        """Write a directory that plain transformers loads bit-equal.

        Args:
            tensors: the complete state dict of this module, on the CPU.
            source: the directory it came from: config, tokenizer, chat template and itemic_meta.json.
        """
        inner = "backbone."
        weights = {
            self.prefix + name.removeprefix(inner): x for name, x in tensors.items() if name.startswith(inner)
        }
        rests = {"embedding": self.rest, "head": self.rest_of_head}
        for (part, rest), name in zip(rests.items(), self.table_names, strict=True):
            if f"{part}.old_rows" in tensors:
                old, new = tensors[f"{part}.old_rows"], tensors[f"{part}.new_rows"]
                weights[name] = torch.cat([old, new, rest.to(old)])
        write_like(source, directory, weights, self.architecture)
