"""What models of item sequences have in common: vectors of items, scores by inner products, a file."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pixelrec_train.batch import pad_histories
from pixelrec_train.losses.cross_entropy import catalogue_cross_entropy
from pixelrec_train.losses.sampled_softmax import sampled_cross_entropy
from pixelrec_train.model.backbone import save_tensors

FILE = "model.safetensors"


class SequentialModel(nn.Module):
    """Item numbers in, scores of the next item out. A subclass has `forward`."""

    def __init__(self, num_items, longest, hidden_size):
        """longest: items of a history that are read, the newest."""
        super().__init__()
        self.longest = longest
        self.items = nn.Parameter(torch.empty(num_items, hidden_size).normal_(std=0.02))

    def forward(
        self, items: Tensor, times: Tensor, place: Tensor | None = None, history: Tensor | None = None
    ) -> Tensor:
        """[B, S] item numbers and seconds -> [B, S, D], in which s has read those of its history up to s.

        place, history: [B, S] of batch.SequenceBatch; None = one history in a row, padded on the right.
        """
        raise NotImplementedError

    def scores(self, hidden: Tensor) -> Tensor:
        """[…, D] -> […, num_items] inner products with every item."""
        return hidden @ self.items.T

    def summed_loss(self, hidden: Tensor, target: Tensor, negatives: Tensor, log_expected: Tensor):
        """The summed cross-entropy in nats, and how many targets none outscores.

        Args:
            hidden: [V, D]; target: [V].
            negatives: [M] drawn items that the softmax is over, besides the target; none = over all items.
            log_expected: [M], see sampled_cross_entropy.
        """
        if len(negatives):
            return sampled_cross_entropy(hidden, target, self.items, negatives, log_expected)
        return catalogue_cross_entropy(hidden, target, self.items)

    @torch.no_grad()
    def score(self, histories, times=None):
        """b non-empty histories (and seconds) -> [b, num_items] scores of the next item, a numpy array."""
        longest = min(self.longest, max(map(len, histories)))
        index, lengths = pad_histories(histories, longest)
        seconds = torch.zeros(index.shape, dtype=torch.float64)
        for row, when in zip(seconds, times or (), strict=bool(times)):
            when = torch.from_numpy(when[-longest:].astype("float64"))
            row[: len(when)] = when
        device = self.items.device
        last = lengths.to(device) - 1
        hidden = self(index.to(device), seconds.to(device))[torch.arange(len(last), device=device), last]
        return self.scores(hidden).float().cpu().numpy()

    def export(self, directory, tensors):
        save_tensors(tensors, Path(directory) / FILE)

    def load(self, directory):
        self.load_state_dict(load_file(Path(directory) / FILE))


def sees(history):
    """[B, S] numbers of histories -> [B, S, S] bool, what each place sees: its own history up to itself."""
    return (history[:, :, None] == history[:, None]).tril()
