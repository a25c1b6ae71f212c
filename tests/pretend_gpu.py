"""A GPU that computes nothing: what would be on it are torch's fake tensors of device cuda:0; the CPU is
real.

A tensor on the wrong device is an error, as on a GPU. What would make the host wait for the device is noted,
with the function of the package that asked, and answered with zeros, so that the pass goes on.
"""

import contextlib
import ctypes
import heapq
import traceback
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers.utils.import_utils
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from pixelrec_train import distributed

DEVICE = torch.device("cuda", 0)
PACKAGE = Path(distributed.__file__).parent
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"  # c10's table of what sets a device, one for each kind
CUDA, META = 1, 14  # c10::DeviceType
aten = torch.ops.aten


class PretendGpu(TorchDispatchMode):
    """waits: Counter of (where in the package, what), of all that has been asked of the device."""

    def __init__(self, fake):
        super().__init__()
        self.fake, self.waits, self.pinned = fake, Counter(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        here = any(isinstance(x, FakeTensor) for x in tensors)
        goes_there = torch.device(kwargs.get("device") or "cpu").type == "cuda"
        if not here and not goes_there:
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        if not here and tensors and tensors[0].numel() and not self.is_pinned(tensors[0]):
            self.note("a copy from pageable memory")
        if function in (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default):
            self.note("a value is read")
            return False if args[0].dtype == torch.bool else 0
        if function in (aten.allclose.default, aten.equal.default):
            self.note("a value is read")
            return True
        if function is aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            self.note("a copy to the CPU")
            with unset_fake_temporarily():
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if function is aten.nonzero.default:
            self.note("places are counted")
            return args[0].new_zeros(args[0].numel(), args[0].dim(), dtype=torch.long)
        if function is aten.bincount.default:  # it waits for the largest
            self.note("places are counted")
            return args[0].new_zeros(max(1, args[2]), dtype=torch.long)
        if function in DATA_DEPENDENT and kwargs.get("output_size") is None:
            self.note(f"its size depends on data: {function}")
            raise NotImplementedError(f"{function}: say what a GPU that computes nothing should answer")
        if function in INDEXED:
            args = (args[0], [index for x in args[1] for index in self.index(x)], *args[2:])
        if function is aten.copy_.default and not isinstance(args[1], FakeTensor) and args[1].dim():
            self.note("a copy from pageable memory")
            args = (args[0], self.there(args[1]), *args[2:])
        args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, self.faked, (args, kwargs))
        return function(*args, **kwargs)

    def index(self, x):
        """[what stands for an index]: one from the CPU is copied; of a mask the places are counted."""
        if isinstance(x, torch.Tensor) and not isinstance(x, FakeTensor):
            self.note("an index comes from the CPU")
            x = self.there(x)
        if isinstance(x, torch.Tensor) and x.dtype == torch.bool:
            self.note("places are counted")
            return [x.new_zeros(x.numel(), dtype=torch.long)] * x.dim()
        return [x]

    def faked(self, x):
        return x if isinstance(x, FakeTensor) else self.fake.from_tensor(x)

    def there(self, x):
        return aten._to_copy(self.faked(x), device=DEVICE)

    def is_pinned(self, x):
        return x.untyped_storage().data_ptr() in {y.untyped_storage().data_ptr() for y in self.pinned}

    def pin(self, x, device=None):
        x = x.clone()
        self.pinned.append(x)
        return x

    def note(self, what):
        """Of the innermost function of the package, but those of batch.py, by which batches are moved."""
        inside = [f for f in traceback.extract_stack() if is_ours(Path(f.filename))]
        where = (
            f"{Path(inside[-1].filename).relative_to(PACKAGE)}: {inside[-1].name}" if inside else "outside"
        )
        self.waits[where, what] += 1

    def move(self, module):
        """The module with its parameters and buffers on the device."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    moved = self.there(parameter.detach())
                    part._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = self.there(buffer)
        return module


def is_ours(path):
    return PACKAGE in path.parents and path.name != "batch.py"


INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor)
DATA_DEPENDENT = (
    aten.masked_select.default, aten.repeat_interleave.Tensor, aten._unique2.default, aten.is_pinned.default,
)  # fmt: skip


@contextlib.contextmanager
def pretend_gpu():
    """A PretendGpu; while it is there, this process computes on it."""
    fake = FakeTensorMode(allow_non_fake_inputs=False)
    gpu = PretendGpu(fake)
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (distributed, "uses_gpu", lambda: True),
            (torch.cuda, "get_device_capability", lambda device=None: (9, 0)),
            (torch.Tensor, "pin_memory", lambda x, device=None: gpu.pin(x)),
            # It would answer that the pass is only traced, and leave out questions that it asks a real GPU.
            (transformers.utils.import_utils, "is_fake_tensor", lambda x: False),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(guards_of_cuda())
        stack.enter_context(fake)
        stack.enter_context(gpu)
        yield gpu


@contextlib.contextmanager
def guards_of_cuda():
    """Indexing and autograd ask C++ which device is set; a torch built without CUDA has nobody to answer.
    In here the one of the meta device does, who has nothing to set."""
    if torch.backends.cuda.is_built():
        yield
        return
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
        table = (ctypes.c_void_p * (META + 1)).in_dll(library, GUARDS)
    except (OSError, ValueError) as error:
        pytest.skip(f"this torch does not let a GPU be pretended: {error}")
    table[CUDA] = table[META]
    try:
        yield
    finally:
        table[CUDA] = None


def backward(loss):
    """loss.backward(), node after node: torch's engine would look for the threads and streams of a GPU."""
    task = id(loss)  # by which checkpointing knows what it has read again already
    with torch.no_grad(), mock.patch.object(torch._C, "_current_graph_task_id", lambda: task):
        ready, found = [], {}
        give(loss.grad_fn, 0, torch.ones_like(loss), ready, found)
        while ready:
            *_, node = heapq.heappop(ready)
            gradients = found.pop(node)
            if hasattr(node, "variable"):  # a leaf
                (gradient,) = gradients
                node.variable.grad = gradient if node.variable.grad is None else node.variable.grad + gradient
                continue
            for (behind, number), gradient in zip(*passed_on(node, gradients), strict=True):
                if behind is not None and gradient is not None:
                    give(behind, number, gradient, ready, found)


def passed_on(node, gradients):
    """(where a node's gradients go, these)"""
    if not hasattr(node, "apply"):
        out = node(*gradients)
        return node.next_functions, out if isinstance(out, tuple) else (out,)
    out = node.apply(*gradients)  # of a Function written in Python: for every argument, tensor or not
    out = out if isinstance(out, tuple) else (out,)
    wanted = [x for x, needed in zip(out, node.needs_input_grad, strict=False) if needed]
    return [edge for edge in node.next_functions if edge[0] is not None], wanted


def give(node, number, gradient, ready, found):
    """A gradient of an output of a node, whose turn comes when all behind it had theirs: the newest first."""
    if node not in found:
        found[node] = [None] * len(node._input_metadata)
        heapq.heappush(ready, (-node._sequence_nr(), id(node), node))
    gradients, like = found[node], node._input_metadata[number]
    gradient = gradient.sum_to_size(like.shape).to(like.dtype)
    gradients[number] = gradient if gradients[number] is None else gradients[number] + gradient
