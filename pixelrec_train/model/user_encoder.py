"""The user LLM: a causal transformer over item embeddings, which never has to look for padding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from pixelrec_train.model import cpu_layers
from pixelrec_train.model.backbone import no_cache

NAME = "pixelrec_causal"


class UserEncoder(nn.Module):
    """A causal transformer over item embeddings; its word embedding is not used and not trained."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        cpu_layers.put_in(backbone)
        # Kept, frozen, so that the exported directory is a complete model; costs no optimizer state.
        backbone.get_input_embeddings().weight.requires_grad_(False)
        declare_causal(backbone)

    def forward(self, embeddings: Tensor) -> Tensor:
        """[B, S, D] item embeddings, padded on the right -> [B, S, D]; position s has read 0..s.

        Attention is causal and padding is on the right, so no real position sees padding; no mask needed.
        """
        return self.backbone(inputs_embeds=embeddings, **no_cache(self.backbone)).last_hidden_state


@torch.no_grad()
def declare_causal(backbone):
    """Let it attend to all positions before each, without asking: transformers would look at the position ids
    whether a row holds several texts, and wait for the GPU at each step. Where that gives other results than
    its own attention, or it has none that can be exchanged, nothing changes."""
    before = backbone.config._attn_implementation
    if before != "sdpa" or not getattr(backbone, "_supports_attention_backend", False):
        return
    weight, was_training = next(backbone.parameters()), backbone.training
    probe = torch.randn(2, 5, backbone.config.hidden_size, generator=torch.Generator().manual_seed(0))
    probe = {"inputs_embeds": probe.to(weight), **no_cache(backbone)}
    backbone.eval()
    expected = backbone(**probe).last_hidden_state
    try:
        backbone.set_attn_implementation(NAME)
        same = torch.equal(backbone(**probe).last_hidden_state, expected)
    except (NotImplementedError, TypeError, ValueError):
        same = False
    backbone.train(was_training)
    if not same:
        backbone.set_attn_implementation(before)


def causal_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, **kwargs
):
    """transformers' attention interface: query [B, H, S, d], key and value [B, H_kv, S, d] -> [B, S, H, d].

    Raises:
        NotImplementedError: the model asks for something other than plain causal attention.
    """
    for name in ("softcap", "s_aux", "head_mask", "position_bias"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"its attention uses {name}")
    if attention_mask is not None or not getattr(module, "is_causal", True):
        raise NotImplementedError("its attention is not plainly causal")
    mask, length = None, query.shape[2]
    if sliding_window is not None and length > sliding_window:
        place = torch.arange(length, device=query.device)
        behind = place[:, None] - place
        mask = (behind >= 0) & (behind < sliding_window)
    out = F.scaled_dot_product_attention(
        query, key, value, mask, dropout, mask is None, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out.transpose(1, 2).contiguous(), None


# No mask function is registered under the name: transformers then makes no mask, and asks the GPU nothing.
AttentionInterface.register(NAME, causal_attention)
