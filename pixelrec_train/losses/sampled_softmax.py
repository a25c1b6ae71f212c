"""Cross-entropy over a catalogue, estimated from a few of its items.

Shapes: N labels, D width, V rows of the table, M drawn rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled_cross_entropy(
    hidden: Tensor, labels: Tensor, table: Tensor, negatives: Tensor, log_expected: Tensor
) -> tuple[Tensor, Tensor]:
    """The summed loss of N labels, each over itself and the drawn rows; one that is the label is left out.

    With log_expected, the exponentials of the drawn scores sum up, on average, to those of all rows but the
    label, so that the loss is an estimate of catalogue_cross_entropy's: a little low, as the logarithm of
    what varies is, by less the more rows are drawn.

    Args:
        hidden: [N, D]; labels: [N] rows of the table; table: [V, D].
        negatives: [M] drawn rows, shared by all labels.
        log_expected: [M] fp32 logarithm of how often a draw holds each; 0 = taken as drawn, not corrected.

    Returns:
        The sum in nats, with gradient; detached, how many labels none of the drawn outscores, uncorrected.

    Source: Bengio and Senecal (IEEE Trans. Neural Networks 19.4, 2008); Yi et al. (RecSys 2019).
    """
    # One look-up: each makes a gradient of the table's size.
    vectors = F.embedding(torch.cat([labels, negatives]), table)
    own = (hidden * vectors[: len(labels)]).sum(-1, dtype=torch.float32)  # [N]
    scores = (hidden @ vectors[len(labels) :].T).float()  # [N, M]
    scores = scores.masked_fill(negatives == labels[:, None], -torch.inf)
    others = (scores - log_expected).logsumexp(-1)  # [N]
    hits = (own >= scores.detach().amax(-1)).sum()
    return (torch.logaddexp(own, others) - own).sum(), hits
