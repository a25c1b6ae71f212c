"""SASRec: a small causal transformer over item ids. The blocks are GPT-2's, which are SASRec's."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from pixelrec_train.batch import pad_histories
from pixelrec_train.model.backbone import save_tensors

FILE = "sasrec.safetensors"


class SASRecModel(nn.Module):
    """Learned item and position vectors, pre-norm causal attention, ReLU feed-forward, inner-product scores.

    Source: Kang and McAuley, ICDM 2018 (arXiv:1808.09781).
    """

    def __init__(self, num_items, max_seq_length, hidden_size, layers, heads, dropout):
        """max_seq_length: items of a window, history + target."""
        super().__init__()
        self.longest = max_seq_length - 1
        self.items = nn.Parameter(torch.empty(num_items, hidden_size).normal_(std=0.02))
        self.backbone = GPT2Model(
            GPT2Config(
                vocab_size=1, n_positions=self.longest, n_embd=hidden_size, n_layer=layers, n_head=heads,
                n_inner=hidden_size, activation_function="relu", resid_pdrop=dropout, embd_pdrop=dropout,
                attn_pdrop=dropout, use_cache=False, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
        self.backbone.wte.weight.requires_grad_(False)  # items have their own table

    def forward(self, history: Tensor) -> Tensor:
        """[B, S] item numbers, padded on the right -> [B, S, D]; row s has read 0..s."""
        return self.backbone(inputs_embeds=F.embedding(history, self.items)).last_hidden_state

    def scores(self, hidden: Tensor) -> Tensor:
        """[…, D] -> […, num_items] inner products with every item."""
        return hidden @ self.items.T

    @torch.no_grad()
    def score(self, histories):
        """b non-empty histories -> [b, num_items] scores of the next item, for recommender.ByScores."""
        index, lengths = pad_histories(histories, self.longest)
        device = self.items.device
        last = lengths.to(device) - 1
        hidden = self(index.to(device))[torch.arange(len(last), device=device), last]
        return self.scores(hidden).float().cpu().numpy()

    def export(self, directory, tensors):
        save_tensors(tensors, Path(directory) / FILE)

    def load(self, directory):
        self.load_state_dict(load_file(Path(directory) / FILE))
