"""An RQ-VAE: codebooks learned together with an encoder that makes room for them, and a decoder.

Shapes: N vectors, D their width, E width of what the codebooks quantise, L levels, K codes of a level.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelrec_train import distributed
from pixelrec_train.semantic_id.networks import build_encoder

SINKHORN_ROUNDS = 50
DECAY = 0.98  # of the moving averages, per step
DEAD = 0.1  # a code with a smaller share than this of the vectors it would fairly have is restarted


class RQVAE(nn.Module):
    """Encoder, L codebooks that follow the vectors they are given, decoder.

    A codebook is no matter of gradients: each row moves to the mean of the vectors that chose it, forgetting
    older ones (exponential moving average), and a row that nobody chooses any more is put where a vector is.

    Source: TIGER (arXiv:2305.05065) and LC-Rec; the moving average and the restart of dead codes are
    VQ-VAE's (arXiv:1711.00937, appendix A) and Jukebox's (arXiv:2005.00341).
    """

    def __init__(self, network, codebooks, counts, sinkhorn_epsilon):
        """
        Args:
            network: arguments of build_encoder; the decoder has the same layers the other way round.
            codebooks: [L] tensors [K, E] to start from.
            counts: [L] tensors [K], vectors of a batch of all ranks that choose each code at the start.
            sinkhorn_epsilon: of the last level's assignment while training; 0 = the nearest code.
        """
        super().__init__()
        self.encoder = build_encoder(**network)
        back = {"width": network["code_width"], "code_width": network["width"]}
        self.decoder = build_encoder(**network | back | {"hidden": network["hidden"][::-1]})
        # Parameters, so that checkpoints hold them, but not the optimizer's.
        self.codebooks, self.counts = frozen(codebooks), frozen(counts)
        self.sums = frozen([b * c[:, None] for b, c in zip(codebooks, counts, strict=True)])
        self.sinkhorn_epsilon = sinkhorn_epsilon

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[N, D] -> decoded [N, D], commitment [] (mean squared distance of encoder and codes, all levels,
        gradients to the encoder alone), codes [N, L], encoded [N, E]. In training mode the codebooks move."""
        encoded = self.encoder(x)
        left, codes, commitment = encoded, [], 0.0
        for level in range(len(self.codebooks)):
            code = self.assign(left.detach(), level)
            row = F.embedding(code, self.codebooks[level])
            if self.training:
                self.follow(left.detach(), code, level)
            commitment = commitment + (left - row).pow(2).sum(1).mean()
            left = left - row
            codes.append(code)
        # Straight through: the decoder reads the codes, its gradient reaches the encoder.
        quantised = encoded - left.detach()
        return self.decoder(quantised), commitment, torch.stack(codes, 1), encoded

    @torch.no_grad()
    def assign(self, left, level):
        """[N] code of each vector at a level."""
        distance = torch.cdist(left, self.codebooks[level]).pow(2)
        last = level == len(self.codebooks) - 1
        if self.training and last and self.sinkhorn_epsilon:
            return sinkhorn(distance, self.sinkhorn_epsilon).argmax(1)
        return distance.argmin(1)

    @torch.no_grad()
    def follow(self, left, code, level):
        """Move a codebook towards the vectors of all ranks that chose it, and restart dead codes."""
        left, code = distributed.all_gather_with_grad(left), distributed.all_gather_with_grad(code)
        book, count, total = self.codebooks[level], self.counts[level], self.sums[level]
        count.mul_(DECAY).index_add_(0, code, torch.ones_like(left[:, 0]), alpha=1 - DECAY)
        total.mul_(DECAY).index_add_(0, code, left, alpha=1 - DECAY)
        fair = len(left) / len(book)
        dead = count < DEAD * fair
        # A dead code goes where a vector is far from its own; on every rank to the same one.
        far = (left - book[code]).pow(2).sum(1).argsort(descending=True, stable=True)
        new = left[far[(dead.cumsum(0) - 1).clamp(min=0) % len(far)]]
        count.copy_(torch.where(dead, fair, count))
        total.copy_(torch.where(dead[:, None], fair * new, total))
        book.copy_(total / count[:, None])


def sinkhorn(distance: Tensor, epsilon: float) -> Tensor:
    """[N, K] squared distances -> [N, K] log shares in which every code gets about equally much.

    Source: LC-Rec; distances are brought to [-1, 1] first.
    """
    middle = (distance.max() + distance.min()) / 2
    spread = (distance.max() - middle).clamp(min=1e-5)
    shares = -((distance - middle) / spread).double() / epsilon
    for _ in range(SINKHORN_ROUNDS):
        shares = shares - shares.logsumexp(0, keepdim=True)
        shares = shares - shares.logsumexp(1, keepdim=True)
    return shares


def frozen(tensors):
    return nn.ParameterList([nn.Parameter(t.clone(), requires_grad=False) for t in tensors])
