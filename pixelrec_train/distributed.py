"""Ranks and what passes between them. The only file that asks for a rank.

Without an initialised process group everything here works as on one rank, so models and data
can be used from a notebook or a test.
"""

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist

from pixelrec_train.errors import InputError


def uses_gpu():
    """Whether this run computes on GPUs; DS_ACCELERATOR=cpu says no where there are some."""
    return torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank():
    return int(os.environ.get("LOCAL_RANK", 0))


def ranks_here():
    """Ranks on this machine."""
    names = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE")
    return int(next((os.environ[name] for name in names if os.environ.get(name)), 1))


def device():
    return torch.device("cuda", local_rank()) if uses_gpu() else torch.device("cpu")


def barrier():
    if dist.is_initialized():
        dist.barrier()


def sent(x, to=None):
    """A tensor of the CPU on this rank's device (or `to`), and nobody waits: it takes pinned memory, as
    a copy from any other waits for what the GPU still does."""
    to = to or device()
    return (x.pin_memory() if to.type == "cuda" else x).to(to, non_blocking=True)


cpus = None  # a group of all ranks beside the first, for what must not wait for a GPU; None on one rank


def connect_cpus(timeout):
    """Make the group `cpus`; all ranks call it, once."""
    global cpus
    cpus = dist.new_group(backend="gloo", timeout=timeout) if world_size() > 1 else None


def be_patient(timeout):
    """A collective waits so long (timedelta) for the others. The name is private to torch: test_launch.py
    would notice a change."""
    for group in (None, cpus):
        dist.distributed_c10d._set_pg_timeout(timeout, group)


class Agreement:
    """agree(number) -> the largest number of any rank at the call before, 0 at the first one.

    On CPUs and one call late, so that neither a GPU nor another rank is waited for. All ranks call it alike.
    """

    def __init__(self):
        self.group = cpus
        self.largest, self.work = torch.zeros(1, dtype=torch.int64), None

    def __call__(self, number):
        if self.work:
            self.work.wait()
        agreed, self.largest[0] = int(self.largest), number
        if self.group is not None:
            self.work = dist.all_reduce(self.largest, dist.ReduceOp.MAX, group=self.group, async_op=True)
        return agreed


@contextmanager
def first_on_each_machine():
    """One rank of each machine runs the block, then the others do: one writes a cache, the rest find it.

    When the first fails, the others go on as well: they meet the same error instead of waiting for ever.
    """
    if local_rank() != 0:
        barrier()
    try:
        yield
    finally:
        if local_rank() == 0:
            barrier()


def from_first_rank(value):
    """Rank 0's value, on every rank (any picklable object; only between ranks of one run)."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=device())
    return box[0]


def mean_over_ranks(values):
    """Mean over ranks of a dict of scalars, as floats: one all-reduce and one wait for the GPU."""
    stacked = torch.stack([torch.as_tensor(v, dtype=torch.float64).to(device()) for v in values.values()])
    if world_size() > 1:
        dist.all_reduce(stacked)
    return dict(zip(values, (stacked / world_size()).tolist(), strict=True))


def mean_tensor(x):
    """Mean over ranks of a tensor that carries no gradient."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world_size()


def coming_mean(x):
    """mean_tensor(x), begun now; a function that gives it. What is computed until then hides the exchange."""
    if world_size() == 1:
        return lambda: x
    x = x.clone()
    work = dist.all_reduce(x, async_op=True)

    def mean():
        work.wait()  # the device does, not the host
        return x / world_size()

    return mean


def over_all(total, mean):
    """A rank's total, with gradient, divided so that DeepSpeed's average over ranks is the mean over what all
    of them counted; as it is where nobody counted any. mean: from coming_mean of what this rank counts."""
    mean = mean()
    return total / torch.where(mean > 0, mean, 1.0)


def gather_objects(value):
    """Every rank's value (picklable, small), in rank order."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_all_ranks(function):
    """[function() of every rank]; an InputError of any rank is raised on all of them."""
    try:
        value, problem = function(), None
    except InputError as error:
        value, problem = None, str(error)
    outcomes = gather_objects((value, problem))
    for _, problem in outcomes:
        if problem is not None:
            raise InputError(problem)
    return [value for value, _ in outcomes]


def gather_rows(x, counts):
    """Rows of all ranks, where rank r holds counts[r] of them; without gradient.

    Args:
        x: [counts[rank], ...] tensor.
        counts: rows of every rank, known to all of them.

    Returns:
        [sum(counts), ...], in rank order.
    """
    if world_size() == 1:
        return x
    padded = x.new_zeros((max(counts), *x.shape[1:]))
    padded[: len(x)] = x
    gathered = x.new_empty((world_size() * max(counts), *x.shape[1:]))
    dist.all_gather_into_tensor(gathered, padded)
    return torch.cat([part[:n] for part, n in zip(gathered.split(max(counts)), counts, strict=True)])


def all_gather_with_grad(x):
    """[n, ...] on every rank -> [world_size * n, ...], in rank order; gradients flow back to their rank.

    The gradient of a rank's rows is the sum of what all ranks ask of them. torch's own
    all_gather with gradient returns wrong values under gloo when that gradient is not contiguous.
    Every rank must hold the same number of rows.
    """
    return _AllGather.apply(x) if world_size() > 1 else x


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.rows = x.shape[0]
        gathered = x.new_empty((world_size() * ctx.rows, *x.shape[1:]))
        dist.all_gather_into_tensor(gathered, x.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, gradient):
        mine = gradient.new_empty((ctx.rows, *gradient.shape[1:]))
        dist.reduce_scatter_tensor(mine, gradient.contiguous())
        return mine
