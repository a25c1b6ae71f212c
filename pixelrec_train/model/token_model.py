"""A causal LM, with itemic tokens or without: reads packed texts, predicts the tokens that are asked for."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pixelrec_train.batch import PackedTexts, TokenBatch
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.losses.cross_entropy import score, summed_cross_entropy, token_cross_entropy
from pixelrec_train.model import cpu_layers, packed_attention
from pixelrec_train.model.adapters import add_adapters, lora_of, merged, write_adapter
from pixelrec_train.model.backbone import load_backbone, under
from pixelrec_train.model.expansion import table_names
from pixelrec_train.model.model_directory import check_directory
from pixelrec_train.model.model_files import write_like
from pixelrec_train.model.normaliser import Packed, log_norm
from pixelrec_train.model.reading import Decoder, window_of
from pixelrec_train.model.segments import Segments
from pixelrec_train.model.split_rows import SplitRows, look_up, score_new
from pixelrec_train.model.vocabulary import META_FILE, ItemicVocabulary


class TokenModel(nn.Module):
    """The transformer without its tables, and the tables, split. Where they are tied there is only one."""

    def __init__(
        self, causal_lm: nn.Module, vocabulary: ItemicVocabulary | None, num_tokens: int, chunk: int,
        first_new: int | None = None,
    ):  # fmt: skip
        """
        Args:
            vocabulary: its itemic tokens; None = it has none.
            num_tokens: those that it may predict; rows from there on are no token.
            chunk: labels scored at a time.
            first_new: the first row of those that can be trained alone; None = of the itemic tokens.
        """
        super().__init__()
        self.vocabulary, self.num_tokens, self.chunk, self.dropout = vocabulary, num_tokens, chunk, 0.0
        self.architecture, self.prefix = type(causal_lm).__name__, f"{causal_lm.base_model_prefix}."
        self.table_names = table_names(causal_lm, "the model")
        cut = first_new or (vocabulary.first_new_id if vocabulary else num_tokens), num_tokens
        table, head = (x().weight for x in (causal_lm.get_input_embeddings, causal_lm.get_output_embeddings))
        self.embedding = SplitRows(table, *cut)
        self.head = None if head is table else SplitRows(head, *cut)
        # Rows that are no token: never read, never predicted, written back as they came.
        for name, weight in (("rest", table), ("rest_of_head", head)):
            self.register_buffer(name, weight[num_tokens:].detach().clone(), persistent=False)
        self.backbone = causal_lm.base_model
        cpu_layers.put_in(self.backbone)
        self.backbone.set_input_embeddings(nn.Identity())  # it is given embeddings, not ids
        self.own_attention, self.packed = self.backbone.config._attn_implementation, None
        self.backbone.set_attn_implementation(packed_attention.NAME)

    @staticmethod
    def load(
        directory, flag_name="--model_dir", chunk=512, dtype=torch.float32, trust=False, first_new=None,
        random_init=False,
    ):  # fmt: skip
        """Of a causal LM's directory: plain, made by scripts/expand_vocabulary.py, or an export.

        Args:
            dtype: "auto" = as in the files.
            trust: whether code in the directory may run.
            first_new: see __init__.
            random_init: weights are not read but drawn anew, as config.json describes them; tokenizer and
                itemic tokens are the directory's.

        Raises:
            InputError: it computes otherwise than as a plain causal LM, or its files contradict each other.
        """
        if (check_directory(directory, flag_name, trust, merges=True) / META_FILE).is_file():
            vocabulary = ItemicVocabulary.load(directory, flag_name, trust)
            num_tokens = vocabulary.tokenizer_length
        else:
            vocabulary, num_tokens = None, len(load_tokenizer(directory, flag_name, trust))
        causal_lm = load_backbone(
            directory, flag_name, dtype, random_init, trust, kind=AutoModelForCausalLM
        ).eval()
        if (rows := len(causal_lm.get_input_embeddings().weight)) < num_tokens:
            raise InputError(
                f"{flag_name} {directory}: its tokenizer has {num_tokens} words, but its table only {rows} "
                f"rows. They must come from the same model."
            )
        middle = vocabulary.first_new_id if vocabulary else num_tokens - 4  # words and itemic tokens
        texts = PackedTexts(torch.arange(middle - 4, middle + 4).clamp(min=0), torch.tensor([3, 5]))
        try:
            with torch.no_grad():  # as its own forward pass reads them, and as ours does
                parts = texts.token_ids.split(texts.lengths.tolist())
                theirs = torch.cat([causal_lm(part[None]).logits[0] for part in parts])
                model = TokenModel(causal_lm, vocabulary, num_tokens, chunk, first_new).eval()
                ours = model.logits(model.read(texts))
            ours, theirs = (x[:, :num_tokens].float() for x in (ours, theirs))
            difference = (ours - theirs).abs().max() / theirs.abs().max()
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

    def forward(self, batch: TokenBatch):
        """The weighted sum of the labels' losses in nats, with gradient; without, [N] each, not weighted, and
        [N] tokens with the highest score."""
        return self.output_rows(
            lambda hidden, *rows: summed_cross_entropy(hidden, batch.labels, rows, self.chunk, batch.weights),
            self.read(batch.texts)[batch.positions],
        )

    def token_losses(self, batch: TokenBatch):
        """[N] losses in nats, with gradient, for objectives in which they are no sum with weights that are
        known beforehand; [N] tokens with the highest score. The backward pass scores a second time."""
        # Branches share the position before their first label: its gradients are added up in one order.
        return self.losses_at(F.embedding(batch.positions, self.read(batch.texts)), batch.labels)

    def losses_at(self, hidden: Tensor, labels: Tensor, entropies: Tensor | None = None):
        """token_losses behind [N, D] final states; entropies: [N], gets those of the distributions."""
        return self.output_rows(
            lambda hidden, *rows: token_cross_entropy(hidden, labels, rows, self.chunk, entropies), hidden
        )

    def read(self, texts: PackedTexts) -> Tensor:
        """Texts -> [T, D] final hidden states; none sees another."""
        embeddings = F.dropout(self.embedding(look_up, texts.token_ids), self.dropout, self.training)
        in_buckets = not packed_attention.reads_rows(self.backbone, embeddings)
        segments = Segments.plan(texts.lengths, embeddings.device, texts.branch, in_buckets)
        out = self.backbone(
            inputs_embeds=embeddings[None], position_ids=segments.position_ids[None], segments=segments,
            use_cache=False,
        )  # fmt: skip
        return F.dropout(out.last_hidden_state[0], self.dropout, self.training)

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """[n, D] -> [n, rows] in fp32, without gradient; -inf where a row is no token."""
        known = self.output_rows(lambda hidden, *rows: score(hidden, rows), hidden)
        return F.pad(known, (0, len(self.rest)), value=-torch.inf)

    @contextmanager
    def decoding(self):
        """A Decoder of this model for beam_search and sample, as long as this lasts: in here the backbone
        attends as transformers has it, with masks and a key-value cache."""
        self.backbone.set_attn_implementation(self.own_attention)
        try:
            yield Decoder(
                embed=lambda ids: self.embedding(look_up, ids.flatten()).unflatten(0, ids.shape),
                backbone=self.backbone,
                head=lambda hidden, ids: self.output_rows(lambda *rows: score_new(hidden, ids, *rows)),
                log_norm=lambda x: self.output_rows(lambda *rows: log_norm(x, *rows, packed=self.packed)),
                logits=self.logits,
                sliding_window=window_of(self.backbone.config),
            )
        finally:
            self.backbone.set_attn_implementation(packed_attention.NAME)

    def stand_still(self):
        """This model, trained no more: on a CPU decoding keeps its output rows as products want them, too."""
        self.packed = Packed()
        return self.requires_grad_(False).eval()

    @property
    def longest_text(self):
        """Tokens it can read and decode behind; None where its config.json names no limit."""
        config = self.backbone.config
        limits = (getattr(config, "max_position_embeddings", None), window_of(config))
        return min((limit for limit in limits if limit), default=None)

    @property
    def output_rows(self):
        return self.embedding if self.head is None else self.head

    def train_new_rows_only(self):
        """Stage 1: everything the base model brought stands still."""
        self.requires_grad_(False)
        self.train_new_rows()

    def train_new_rows(self):
        """Those of new tokens, if it has any; nothing else changes."""
        for rows in (self.embedding, self.head):
            if rows is not None and rows.new_rows is not None:
                rows.new_rows.requires_grad_(True)

    def train_adapters(self, lora, seed, device=None):
        """Adapters, and the new rows if `lora` (AdapterFlags) says so, are all that trains."""
        self.requires_grad_(False)
        add_adapters(self.backbone, lora, seed, device)
        if lora.lora_train_new_rows:
            self.train_new_rows()

    def freeze_old_rows(self):
        """The words that the base model brought stand still, and nothing else."""
        for rows in (self.embedding, self.head):
            if rows is not None:
                rows.old_rows.requires_grad_(False)

    def enable_checkpointing(self):
        """Recompute activations layer by layer in the backward pass; non-reentrant, as ZeRO needs it."""
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def export(self, directory, tensors, source):
        """Write a directory that plain transformers loads bit-equal; adapters are added to their layers.

        Args:
            tensors: the complete state dict of this module, on the CPU.
            source: the directory it came from: config, tokenizer, chat template and itemic_meta.json.
        """
        weights = merged(self.backbone, under("backbone.", tensors))
        weights = {self.prefix + name: x for name, x in weights.items()}
        rests = {"embedding": self.rest, "head": self.rest_of_head}
        for (part, rest), name in zip(rests.items(), self.table_names, strict=True):
            if f"{part}.old_rows" in tensors:
                rows = [tensors.get(f"{part}.{kind}") for kind in ("old_rows", "new_rows")]
                weights[name] = torch.cat([*filter(lambda x: x is not None, rows), rest.to(rows[0])])
        write_like(source, directory, weights, self.architecture)

    def export_adapter(self, directory, tensors, source):
        """Write its adapters, and the new rows if they train, as peft reads them; see export."""
        if lora_of(self.backbone) is None:
            return
        trained = {}
        for part, name in zip(("embedding", "head"), self.table_names, strict=True):
            rows = getattr(self, part)
            if rows is not None and rows.new_rows is not None and rows.new_rows.requires_grad:
                numbers = list(range(tensors[f"{part}.old_rows"].shape[0], self.num_tokens))
                trained[name.removesuffix(".weight")] = numbers, tensors[f"{part}.new_rows"]
        inner = under("backbone.", tensors)
        write_adapter(self.backbone, directory, inner, source, self.prefix, "CAUSAL_LM", trained)
