"""Of the last layer only some tokens are read, so what it does token by token is done for them alone.

Attention needs keys and values of every token; the output projection and the MLP after it do not mix tokens.
They are five sixths of a Qwen3 layer: 1 / 30 of a tower of 28 layers, 2 / 5 of the demo's two.
"""

from contextlib import contextmanager

import torch


def read_last_tokens_alone(backbone):
    """From now on the last layer's hidden states are right at segments.last and meaningless elsewhere.

    Works on calls with `segments`, as packed_attention's. Where a layer is built otherwise, nothing changes.

    Returns:
        A function that takes it back.
    """
    layers = getattr(backbone, "layers", None)
    parts = list(token_by_token(layers[-1], backbone.config.hidden_size)) if layers else []
    if not parts:
        return lambda: None
    where = {"last": None}

    def enter(layer, args, kwargs):
        # Here, and not once per call of the model: with activation checkpointing a layer is called again.
        where["last"] = kwargs["segments"].last if "segments" in kwargs else None

    def take(part, args):
        if where["last"] is None:
            return None
        where["shape"] = args[0].shape
        return (args[0][:, where["last"]], *args[1:])

    def put_back(part, args, out):
        if where["last"] is None:
            return None
        everywhere = out.new_zeros(*where["shape"][:2], out.shape[-1])
        return everywhere.index_copy(1, where["last"], out)

    def leave(layer, args, out):
        where["last"] = None

    handles = [layers[-1].register_forward_pre_hook(enter, with_kwargs=True)]
    handles.append(layers[-1].register_forward_hook(leave))
    for part in parts:
        handles += [part.register_forward_pre_hook(take), part.register_forward_hook(put_back)]
    return lambda: [handle.remove() for handle in handles]


@contextmanager
def row_ends_alone(backbone, last, length):
    """In here the last layer's hidden states of [B, length] tokens are right at place last[b] of row b, and
    meaningless elsewhere.

    Where a layer has no such parts, or calls them otherwise than with [B, length, D], nothing changes. One
    thread at a time, as everywhere that a model decodes.
    """
    layers = getattr(backbone, "layers", None) if length > 1 else None
    parts = projection_and_mlp(layers[-1]) if layers else ()
    row = torch.arange(len(last), device=last.device)

    def fits(x):
        return isinstance(x, torch.Tensor) and x.dim() == 3

    def take(part, args):
        if not args or not fits(args[0]) or args[0].shape[:2] != (len(last), length):
            return None
        return (args[0][row, last][:, None], *args[1:])

    def put_back(part, args, out):
        return out.expand(-1, length, -1) if fits(out) and out.shape[1] == 1 else None

    handles = []
    for part in parts:
        if isinstance(part, torch.nn.Module):
            handles += [part.register_forward_pre_hook(take), part.register_forward_hook(put_back)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def projection_and_mlp(layer):
    """What a layer does token by token behind its attention, by the usual names; None = it has none such."""
    return getattr(getattr(layer, "self_attn", None), "o_proj", None), getattr(layer, "mlp", None)


def token_by_token(layer, width):
    """The layer's output projection, and its MLP if that maps [1, n, D] to [1, n, D] and nothing else."""
    projection, mlp = projection_and_mlp(layer)
    if isinstance(projection, torch.nn.Linear):
        yield projection
    if mlp is not None:
        weight = next(mlp.parameters())
        probe = torch.zeros(1, 2, width, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            out = mlp(probe)
        if isinstance(out, torch.Tensor) and out.shape == probe.shape:
            yield mlp
