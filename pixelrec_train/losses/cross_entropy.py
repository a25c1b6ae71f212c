"""Cross-entropy over a vocabulary whose scores for a whole batch would not fit: chunk by chunk, in fp32.

Two ways to the same gradients: where a label's weight in the loss is known beforehand they are made with the
scores, and none is computed twice; where it is not, the scores are computed again.

Shapes: N labels, D width, V rows of all tables together, laid one below the other.
"""

import torch
from torch import Tensor

SCORES_IN_CACHE, SCORES_ON_GPU = 2**18, 2**27  # scores of a catalogue at a time


def summed_cross_entropy(
    hidden: Tensor, labels: Tensor, tables: tuple[Tensor, ...], chunk: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sum of the losses of N labels, with gradient at no extra cost.

    Gradients are made while the scores of a chunk are there, so the backward pass only hands them out: no
    score is kept or computed twice, and to an engine it is an ordinary loss. Memory besides the gradients
    themselves is that of [chunk, V].

    Args:
        hidden: [N, D]; N may be 0: the loss is 0 then, and gradients of 0 still reach every tensor.
        labels: [N] int64 rows, counted through all tables.
        tables: [V_i, D] each; only those that require a gradient get one.
        chunk: labels scored at a time.
        weights: [N] of any sign, without gradient; None = all 1.

    Returns:
        The sum in nats; detached, [N] losses, not weighted, and [N] rows with the highest score.
    """
    return _Summed.apply(hidden, labels, chunk, weights, torch.is_grad_enabled(), *tables)


def token_cross_entropy(
    hidden: Tensor,
    labels: Tensor,
    tables: tuple[Tensor, ...],
    chunk: int,
    entropies: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of each of N labels, that is its log-probability with a minus, to be used in any way.

    Memory is that of summed_cross_entropy; the backward pass computes the scores a second time, as only then
    it is known what each of them is worth.

    Args:
        entropies: [N] fp32, gets what each of the distributions has, in nats; None = it is not asked for.

    Returns:
        [N] losses in nats, with gradient; detached, [N] rows with the highest score.
    """
    return _EachToken.apply(hidden, labels, chunk, entropies, *tables)


def catalogue_cross_entropy(hidden: Tensor, labels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss of N labels over one small table, in blocks of scores that stay in a cache.

    Args:
        hidden: [N, D]; labels: [N] rows of the table; table: [V, D].

    Returns:
        The sum in nats, with gradient (made with the scores, as in summed_cross_entropy); detached, how many
        labels no row outscores.
    """
    return _OverCatalogue.apply(hidden, labels, table, torch.is_grad_enabled())


class _OverCatalogue(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, labels, table, with_gradient):
        wanted = [with_gradient and needed for needed in (ctx.needs_input_grad[0], ctx.needs_input_grad[2])]
        gradients = Gradients(hidden, (table,), wanted)
        total, hits = hidden.new_zeros((), dtype=torch.float32), labels.new_zeros(())
        chunk = max(64, (SCORES_ON_GPU if hidden.is_cuda else SCORES_IN_CACHE) // len(table))
        for first in range(0, len(hidden), chunk):
            part = slice(first, first + chunk)
            scores = score(hidden[part], (table,))
            own, top = scores.gather(1, labels[part, None]), scores.amax(-1, keepdim=True)
            share = scores.softmax(-1)
            # The largest share is 1 / sum of exp(score - top): exact however small a label's own share is.
            total += (top - share.amax(-1, keepdim=True).log() - own).sum()
            hits += (own >= top).sum()
            if any(wanted):
                share.scatter_add_(1, labels[part, None], share.new_full((len(own), 1), -1.0))
                gradients.add(part, share, None)
        ctx.gradients = gradients.finished()
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx, gradient, _):
        of_hidden, of_table = (None if g is None else g.mul_(gradient) for g in ctx.gradients)
        ctx.gradients = None
        return of_hidden, None, of_table, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, labels, chunk, weights, with_gradient, *tables):
        wanted = [with_gradient and ctx.needs_input_grad[n] for n in (0, *range(5, 5 + len(tables)))]
        gradients = Gradients(hidden, tables, wanted) if any(wanted) else None
        losses, best = losses_of(hidden, labels, tables, chunk, gradients, weights)
        ctx.gradients = gradients and gradients.finished()
        ctx.mark_non_differentiable(losses, best)
        return (losses if weights is None else losses * weights).sum(), losses, best

    @staticmethod
    def backward(ctx, gradient, *_):
        of_hidden, *of_tables = (None if g is None else g.mul_(gradient) for g in ctx.gradients)
        ctx.gradients = None
        return of_hidden, None, None, None, None, *of_tables


class _EachToken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, labels, chunk, entropies, *tables):
        losses, best = losses_of(hidden, labels, tables, chunk, entropies=entropies)
        ctx.chunk = chunk
        ctx.save_for_backward(hidden, labels, *tables)
        ctx.mark_non_differentiable(best)
        return losses, best

    @staticmethod
    def backward(ctx, gradient, _):
        hidden, labels, *tables = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[n] for n in (0, *range(4, 4 + len(tables)))]
        gradients = Gradients(hidden, tables, wanted)
        losses_of(hidden, labels, tables, ctx.chunk, gradients, gradient)
        of_hidden, *of_tables = gradients.finished()
        return of_hidden, None, None, None, *of_tables


def losses_of(hidden, labels, tables, chunk, gradients=None, weights=None, entropies=None):
    """[N] losses, [N] best rows; the gradients of the weighted sum are added to `gradients`."""
    losses = hidden.new_empty(len(hidden), dtype=torch.float32)
    best = torch.empty_like(labels)
    for first in range(0, len(hidden), chunk):
        part = slice(first, first + chunk)
        scores = score(hidden[part], tables)
        losses[part], best[part] = read_off(scores, labels[part])
        if entropies is not None:
            entropies[part] = torch.special.entr(scores.exp()).sum(-1)
        if gradients is not None:
            to_score_gradient(scores, labels[part])
            gradients.add(part, scores, None if weights is None else weights[part, None])
    return losses, best


class Gradients:
    """Of hidden and tables, None where none is wanted; summed over chunks in fp32, whatever the weights'."""

    def __init__(self, hidden, tables, wanted):
        self.hidden, self.tables = hidden, tables
        self.of_hidden, *self.of_tables = (
            torch.zeros_like(x, dtype=torch.float32) if w else None
            for x, w in zip((hidden, *tables), wanted, strict=True)
        )

    def add(self, part, by_scores, weights):
        """Those of the labels of a chunk. weights: [n, 1] or None; on the side of the width, where they are
        cheap."""
        hidden = self.hidden[part]
        weighted = hidden if weights is None else (hidden * weights).to(hidden.dtype)
        sizes = [len(table) for table in self.tables]
        for table, of_table, columns in zip(
            self.tables, self.of_tables, by_scores.split(sizes, 1), strict=True
        ):
            columns = columns.to(hidden.dtype)
            if self.of_hidden is not None:
                of_hidden = columns @ table
                self.of_hidden[part] += of_hidden if weights is None else of_hidden * weights
            if of_table is not None and hidden.dtype == torch.float32:
                of_table.addmm_(columns.T, weighted)
            elif of_table is not None:
                of_table += columns.T @ weighted

    def finished(self):
        """(of hidden, *of tables) in the precision of each."""
        pairs = zip((self.of_hidden, *self.of_tables), (self.hidden, *self.tables), strict=True)
        return [None if g is None else g.to(x.dtype) for g, x in pairs]


def score(hidden, tables):
    """[n, D] -> [n, V] fp32"""
    scores = hidden.new_empty(len(hidden), sum(map(len, tables)), dtype=torch.float32)
    for table, columns in zip(tables, scores.split([len(t) for t in tables], 1), strict=True):
        if hidden.dtype == torch.float32:
            torch.mm(hidden, table.T, out=columns)
        else:
            columns.copy_(hidden @ table.T)
    return scores


def read_off(scores, labels):
    """[n] losses, [n] best rows; scores become log-probabilities in place."""
    best = scores.argmax(-1)
    scores -= scores.logsumexp(-1, keepdim=True)
    return -scores.gather(1, labels[:, None])[:, 0], best


def to_score_gradient(log_probabilities, labels):
    """In place: the gradient of the summed losses by the scores."""
    log_probabilities.exp_()
    log_probabilities.scatter_add_(1, labels[:, None], log_probabilities.new_full((len(labels), 1), -1.0))
