"""HLLM: an item LLM embeds texts, a user LLM reads sequences of those embeddings (arXiv:2409.12740)."""

import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import check_towers, load_backbone, no_cache, save_tensors, write_backbone
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.tokenizer_files import tokenizer_files

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
HEAD_FILE = "hllm_head.safetensors"


class UserEncoder(nn.Module):
    """A causal transformer over item embeddings; its word embedding is not used and not trained."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        # Kept, frozen, so that the exported directory is a complete model; costs no optimizer state.
        backbone.get_input_embeddings().weight.requires_grad_(False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """[B, S, D] item embeddings, padded on the right -> [B, S, D]; position s has read 0..s.

        Attention is causal and padding is on the right, so no real position sees padding; no mask needed.
        """
        return self.backbone(inputs_embeds=embeddings, **no_cache(self.backbone)).last_hidden_state


class HLLMModel(nn.Module):
    """The two towers and the temperature of their similarity."""

    def __init__(
        self, item_backbone: nn.Module, user_backbone: nn.Module, item_emb_token_n: int, max_text_length: int
    ):
        super().__init__()
        self.item_llm = TextEncoder(item_backbone, item_emb_token_n, max_text_length + item_emb_token_n)
        self.user_llm = UserEncoder(user_backbone)
        # One element, not a 0-dim scalar: DeepSpeed cannot flatten those.
        self.logit_scale = nn.Parameter(torch.full((1,), INITIAL_LOGIT_SCALE))

    def forward(self, batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """TwoTowerBatch -> user [B, S, D], target [B, S, D], negatives [N, D], logit_scale [1].

        Every distinct item is encoded once, in one call of the item LLM.
        """
        items = self.item_llm(batch.items)  # [I, D]
        user = self.user_llm(items[batch.history])
        return user, items[batch.target], items[batch.negatives], self.logit_scale.clone()

    def enable_checkpointing(self):
        """Recompute activations in the backward pass; non-reentrant, as ZeRO needs it."""
        for backbone in (self.item_llm.backbone, self.user_llm.backbone):
            backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @staticmethod
    def from_pretrained_towers(config) -> "HLLMModel":
        """Two Hugging Face directories -> a model in fp32, whatever precision they are stored in."""
        item = load_backbone(config.item_model_dir, "--item_model_dir")
        user = load_backbone(config.user_model_dir, "--user_model_dir")
        check_towers(item, user, config)
        return HLLMModel(item, user, config.item_emb_token_n, config.max_text_length)

    def export(self, directory, tensors: dict[str, Tensor], tokenizer_dir):
        """Write item_llm/ and user_llm/ as Hugging Face directories and the rest as safetensors.

        Args:
            tensors: the complete state dict of this module, on the CPU.
            tokenizer_dir: its tokenizer files are copied into item_llm/.
        """
        directory = Path(directory)
        for name, tower in (("item_llm", self.item_llm), ("user_llm", self.user_llm)):
            prefix = f"{name}.backbone."
            weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            write_backbone(tower.backbone, directory / name, weights)
        head = {"logit_scale": tensors["logit_scale"]}
        if self.item_llm.item_token is not None:
            head["item_emb_tokens"] = tensors["item_llm.item_token"]
        save_tensors(head, directory / HEAD_FILE)
        for file in tokenizer_files(tokenizer_dir):
            shutil.copy(file, directory / "item_llm")

    @staticmethod
    def load(directory, max_text_length: int) -> "HLLMModel":
        """The model of a checkpoint's export, in the precision it was trained in, ready to evaluate."""
        directory = Path(directory)
        if not (directory / HEAD_FILE).is_file():
            raise InputError(
                f"--checkpoint {directory} holds no {HEAD_FILE}. Expected a checkpoint-epoch-N or "
                "best_model directory."
            )
        head = load_file(directory / HEAD_FILE)
        dtype = head["logit_scale"].dtype
        item = load_backbone(directory / "item_llm", "--checkpoint", dtype)
        user = load_backbone(directory / "user_llm", "--checkpoint", dtype)
        model = HLLMModel(item, user, int("item_emb_tokens" in head), max_text_length)
        with torch.no_grad():
            # Parameters alone take the trained precision: rotary frequencies stay fp32, as in training.
            model.logit_scale.data = head["logit_scale"]
            if "item_emb_tokens" in head:
                model.item_llm.item_token.copy_(head["item_emb_tokens"].reshape(-1))
        return model.eval()
