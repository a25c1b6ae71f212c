"""Cross-entropy over a vocabulary whose scores for a whole batch would not fit: chunk by chunk.

Shapes: N labels, D width, V rows of all tables together.
"""

import torch
from torch import Tensor


def token_cross_entropy(
    hidden: Tensor, labels: Tensor, tables: tuple[Tensor, ...], chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of N labels against all rows of some tables, laid one below the other, scored in fp32.

    Gradients are made while the scores of a chunk are there, so the backward pass only hands them out: no
    score is kept or computed twice, and to an engine it is an ordinary loss. Memory besides the gradients
    themselves is that of [chunk, V].

    Args:
        hidden: [N, D]; N may be 0: the loss is 0 then, and gradients of 0 still reach every tensor.
        labels: [N] int64 rows, counted through all tables.
        tables: [V_i, D] each; only those that require a gradient get one.
        chunk: labels scored at a time.

    Returns:
        The sum of the losses in nats; detached, [N] losses and [N] rows with the highest score.
    """
    return _TokenCrossEntropy.apply(hidden, labels, chunk, torch.is_grad_enabled(), *tables)


class _TokenCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, labels, chunk, with_gradient, *tables):
        wanted = [with_gradient and ctx.needs_input_grad[n] for n in (0, *range(4, 4 + len(tables)))]
        # Summed over chunks in fp32, whatever the precision of the weights.
        gradients = [
            torch.zeros_like(x, dtype=torch.float32) if w else None
            for x, w in zip((hidden, *tables), wanted, strict=True)
        ]
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        best = torch.empty_like(labels)
        for first in range(0, len(hidden), chunk):
            part = slice(first, first + chunk)
            scores = score(hidden[part], tables)
            losses[part], best[part] = read_off(scores, labels[part])
            if any(wanted):
                to_score_gradient(scores, labels[part])
                add_gradients(gradients, part, scores, hidden[part], tables)
        pairs = zip(gradients, (hidden, *tables), strict=True)
        ctx.gradients = [None if g is None else g.to(x.dtype) for g, x in pairs]
        ctx.mark_non_differentiable(losses, best)
        return losses.sum(), losses, best

    @staticmethod
    def backward(ctx, gradient, *_):
        of_hidden, *of_tables = (None if g is None else g.mul_(gradient) for g in ctx.gradients)
        ctx.gradients = None
        return of_hidden, None, None, None, *of_tables


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


def add_gradients(gradients, part, by_scores, hidden, tables):
    of_hidden, *of_tables = gradients
    sizes = [len(table) for table in tables]
    for table, of_table, columns in zip(tables, of_tables, by_scores.split(sizes, 1), strict=True):
        columns = columns.to(hidden.dtype)
        if of_hidden is not None:
            of_hidden[part] += columns @ table
        if of_table is not None and hidden.dtype == torch.float32:
            of_table.addmm_(columns.T, hidden)
        elif of_table is not None:
            of_table += columns.T @ hidden
