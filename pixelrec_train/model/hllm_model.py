"""HLLM: an item LLM embeds texts, a user LLM reads sequences of those embeddings (arXiv:2409.12740)."""

import math
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelrec_train import distributed
from pixelrec_train.batch import Items
from pixelrec_train.errors import InputError
from pixelrec_train.files import tokenizer_files
from pixelrec_train.model.adapters import merged
from pixelrec_train.model.backbone import (
    load_backbone,
    read_tensors,
    save_tensors,
    starting_backbone,
    to_train_in,
    under,
    write_backbone,
)
from pixelrec_train.model.fitting import check_parts, check_towers
from pixelrec_train.model.item_features import ItemFeatures
from pixelrec_train.model.item_id_embedding import ItemIdEmbedding
from pixelrec_train.model.offsets import Offsets
from pixelrec_train.model.projection import Projection
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.model.time_embedding import TimeEmbedding
from pixelrec_train.model.user_encoder import UserEncoder
from pixelrec_train.sentence_encoder import SentenceEncoder

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
HEAD_FILE = "hllm_head.safetensors"


class HLLMModel(nn.Module):
    """The two towers, the vectors of item ids if there are any, and the temperature of their similarity."""

    def __init__(
        self, item_llm: TextEncoder | None, user_backbone: nn.Module, item_id: ItemIdEmbedding | None = None,
        item_features: ItemFeatures | None = None, offsets: Offsets | None = None,
    ):  # fmt: skip
        super().__init__()
        self.item_llm, self.item_id = item_llm, item_id
        self.item_features, self.offsets = item_features, offsets
        self.user_llm = UserEncoder(user_backbone)
        self.times: TimeEmbedding | None = None  # of the history, where they are read
        self.projection: Projection | None = None  # of text embeddings, where it is needed
        # [1], not a 0-dim scalar: DeepSpeed cannot flatten those.
        self.logit_scale = nn.Parameter(torch.full((1,), INITIAL_LOGIT_SCALE))
        self.history_dropout = 0.0
        self.register_buffer("stored", None, persistent=False)  # see store_texts

    def forward(self, batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """TwoTowerBatch -> user [B, S, D], target [B, S, D], negatives [M, D], logit_scale [1].

        Every distinct item of all ranks is encoded once, by one of them.
        """
        own = self.encode_items(batch.items, batch.chunks)  # [I, D]
        table = own.float()  # gradients of an item are summed over its places and over ranks: in fp32
        if batch.rows:
            table = distributed.all_gather_with_grad(F.pad(table, (0, 0, 0, batch.rows - len(table))))
        history = F.dropout(table[batch.history], self.history_dropout, self.training)
        history = history.to(own.dtype)
        user = self.user_llm(history if self.times is None else history + self.times(batch.clock))
        return user, table[batch.target], table[batch.negatives], self.logit_scale.clone()

    def encode_items(self, items: Items, chunks: int = 1) -> Tensor:
        """[I, D] embeddings: of the text, the item's own vector and its features, as far as there are any."""
        texts = None if self.item_llm is None else self.encode_texts(items, chunks)
        texts = texts if self.projection is None else self.projection(texts)
        ids = None if self.item_id is None else self.item_id(items.numbers)
        if self.item_features is not None:
            return self.item_features(texts, items.numbers, ids)
        return ids if texts is None else texts if ids is None else texts + ids

    def encode_texts(self, items: Items, chunks: int = 1) -> Tensor:
        """[I, width of the item LLM] of the texts, read by it unless it has read them for good."""
        return self.item_llm(items.texts, chunks) if self.reads_texts else self.stored[items.numbers]

    @property
    def reads_texts(self) -> bool:
        """Whether the item LLM reads at every step."""
        return self.item_llm is not None and self.stored is None

    def store_texts(self, embeddings: Tensor):
        """From now on a text's embedding is its row of [num_items, width of the item LLM], once frozen."""
        weight = self.user_llm.backbone.get_input_embeddings().weight
        self.stored = embeddings.to(distributed.device(), weight.dtype)

    def compile_towers(self):
        """torch.compile both transformers, for any number of texts; the first steps wait for the compiler."""
        for tower in (self.item_llm, self.user_llm):
            if tower is not None:
                tower.backbone.compile(dynamic=True)

    def enable_checkpointing(self):
        """Recompute activations layer by layer in the backward pass; non-reentrant, as ZeRO needs it."""
        for tower in (self.item_llm, self.user_llm):
            if tower is not None:
                tower.backbone.gradient_checkpointing_enable({"use_reentrant": False})

    @staticmethod
    def starting(hllm, item_ids=(), train_counts=None, known=None, bf16=False) -> "HLLMModel":
        """What a run trains: pretrained towers, or the weights of --init_from.

        Args:
            hllm: HllmFlags.
            item_ids, train_counts: of the catalogue; needed for item id embeddings only.
            known: KnownItems; needed for --offsets and --item_features only.
            bf16: whether it is trained in bf16, see to_train_in.

        Raises InputError where towers, flags and checkpoint do not fit together.
        """
        encoder = hllm.encoder_of(hllm.item_dir)
        if hllm.init_from:
            dtype, trust = to_train_in(bf16), hllm.trust_remote_code
            model = HLLMModel.load(hllm.init_from, hllm.max_text_length, item_ids, dtype, trust)
            check_parts(model, hllm)
            if encoder is not None:
                model.item_llm.pooling.encoder = encoder
        else:
            item = None if hllm.id_only else starting_backbone(hllm, "item", bf16)
            user = starting_backbone(hllm, "user", bf16)
            check_towers(item, user, hllm)
            if item is not None:
                pooling_dir = None if "item" in hllm.random_init else hllm.item_dir
                item = TextEncoder.of(item, hllm.item_emb_token_n, hllm.max_text_length, encoder, pooling_dir)
            model = HLLMModel(item, user)
        width = model.user_llm.backbone.config.hidden_size
        joined = hllm.item_features and not hllm.projection  # by their network, whatever the widths
        if hllm.time_features and model.times is None:
            model.times = TimeEmbedding.new(width)
        if not (model.item_llm is None or model.projection or joined):
            model.projection = Projection.between(model.item_llm.width, width, hllm.projection)
        if model.item_id is not None:
            model.item_id.settle(train_counts, alone=hllm.id_only)
        elif hllm.has_item_ids:
            model.item_id = ItemIdEmbedding.new(item_ids, width, train_counts, alone=hllm.id_only)
        if hllm.offsets:
            model.offsets = Offsets.starting(known, item_ids, model.offsets)
        if hllm.item_features:
            model.item_features = ItemFeatures.starting(known, item_ids, model, hllm)
        model.history_dropout = hllm.history_dropout
        if hllm.freeze_item_llm:
            model.item_llm.requires_grad_(False)
        return model

    def export(self, directory, tensors: dict[str, Tensor], tokenizer_dir):
        """Write item_llm/ and user_llm/, adapters merged in, as Hugging Face directories; the rest beside.

        Args:
            tensors: the complete state dict of this module, on the CPU.
            tokenizer_dir: its tokenizer files are copied into item_llm/.
        """
        directory = Path(directory)
        for name, tower in (("item_llm", self.item_llm), ("user_llm", self.user_llm)):
            if tower is not None:
                weights = merged(tower.backbone, under(f"{name}.backbone.", tensors))
                write_backbone(tower.backbone, directory / name, weights)
        head = {"logit_scale": tensors["logit_scale"]}
        if self.item_llm is not None:
            if self.item_llm.item_token is not None:
                head["item_emb_tokens"] = tensors["item_llm.item_token"]
            for file in tokenizer_files(tokenizer_dir):
                shutil.copy(file, directory / "item_llm")
            self.item_llm.pooling.export(directory / "item_llm", under("item_llm.pooling.", tensors))
        small = [name for name in ("projection", "times") if getattr(self, name) is not None]
        head |= {name: tensors[f"{name}.weight"] for name in small}
        if self.item_id is not None:
            self.item_id.export(directory, tensors["item_id.weight"])
        if self.item_features is not None:
            self.item_features.export(directory, under("item_features.", tensors))
        if self.offsets is not None:
            self.offsets.export(directory, tensors["offsets.weight"])
        save_tensors(head, directory / HEAD_FILE)

    @staticmethod
    def load(directory, max_text_length: int, item_ids=(), dtype=None, trust=()) -> "HLLMModel":
        """The model of a checkpoint's export, ready to evaluate.

        Args:
            item_ids: of the catalogue, whose order the rows of item id embeddings follow.
            dtype: None = the precision it was trained in.
            trust: towers that may run code of their own, "item", "user".
        """
        directory = Path(directory)
        if not (directory / HEAD_FILE).is_file():
            raise InputError(
                f"the checkpoint {directory} holds no {HEAD_FILE}. Expected a checkpoint-epoch-N or "
                "best_model directory."
            )
        head = read_tensors(directory / HEAD_FILE)
        dtype = dtype or head["logit_scale"].dtype
        item_llm = None
        if (directory / "item_llm").is_dir():
            token_n = int("item_emb_tokens" in head)
            item = load_backbone(directory / "item_llm", "the checkpoint", dtype, trust="item" in trust)
            encoder = None if token_n else SentenceEncoder.of(directory / "item_llm", "the checkpoint")
            item_llm = TextEncoder.of(item, token_n, max_text_length, encoder, directory / "item_llm")
        user = load_backbone(directory / "user_llm", "the checkpoint", dtype, trust="user" in trust)
        parts = [part.load(directory, item_ids, dtype) for part in (ItemIdEmbedding, ItemFeatures, Offsets)]
        model = HLLMModel(item_llm, user, *parts)
        for name, part in (("projection", Projection), ("times", TimeEmbedding)):
            if name in head:
                setattr(model, name, part(head[name].to(dtype)))
        with torch.no_grad():
            # Parameters alone take the trained precision: rotary frequencies stay fp32, as in training.
            model.logit_scale.data = head["logit_scale"].to(dtype)
            if "item_emb_tokens" in head:
                model.item_llm.item_token.copy_(head["item_emb_tokens"].reshape(-1))
        return model.eval()
