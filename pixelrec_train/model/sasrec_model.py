"""SASRec: a small causal transformer over item ids. The blocks are GPT-2's, which are SASRec's."""

import torch.nn.functional as F
from transformers import GPT2Config, GPT2Model

from pixelrec_train.model.sequential_model import SequentialModel, sees


class SASRecModel(SequentialModel):
    """Learned item and position vectors, pre-norm causal attention, ReLU feed-forward, inner-product scores.

    Source: Kang and McAuley, ICDM 2018 (arXiv:1808.09781).
    """

    def __init__(self, num_items, longest, hidden_size, layers, heads, dropout):
        super().__init__(num_items, longest, hidden_size)
        self.backbone = GPT2Model(
            GPT2Config(
                vocab_size=1, n_positions=longest, n_embd=hidden_size, n_layer=layers, n_head=heads,
                n_inner=hidden_size, activation_function="relu", resid_pdrop=dropout, embd_pdrop=dropout,
                attn_pdrop=dropout, use_cache=False, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
        self.backbone.wte.weight.requires_grad_(False)  # items have their own table

    def forward(self, items, times, place=None, history=None):
        return self.backbone(
            inputs_embeds=F.embedding(items, self.items),
            position_ids=place,
            attention_mask=None if history is None else sees(history)[:, None],
        ).last_hidden_state
