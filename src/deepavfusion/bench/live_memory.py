"""Counts the bytes that are alive at once in a forward and backward pass, without computing it.

The pass runs on tensors that have a shape and no content (PyTorch's fake tensors). The results of every operation are
followed until nothing holds them. That counts both what autograd keeps and temporary results, at the moment when their
sum is largest. Memory inside an operation's kernel is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """While active, counts the bytes of all tensors that come about, gradients of parameters apart.

    `peak` is the largest sum so far of all else plus `gradient_share` of the gradients' bytes.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], known: Iterable[Tensor], gradient_share: float = 1.0
    ) -> None:
        """
        Args:
            parameters: their gradients count as such from the moment they are complete.
            known: tensors that are there already and do not count.
            gradient_share: part of a complete gradient that stays, where it is divided over processes.
        """
        super().__init__()
        self.gradient_share, self.peak, self.other, self.gradients = gradient_share, 0.0, 0, 0
        self._parameters = [p for p in parameters if p.requires_grad]
        self._storages: dict[int, tuple[weakref.ref[Any], int, bool]] = {}
        self._ignored = {id(storage): storage for storage in (t.untyped_storage() for t in known)}
        self._handles: list[Any] = []

    def __enter__(self) -> LiveMemory:
        self._handles = [p.register_post_accumulate_grad_hook(self._complete) for p in self._parameters]
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        self._weigh()
        return results

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)  # torch keeps one object per storage while the storage lives
        if key in self._ignored or key in self._storages:
            return
        reference = weakref.ref(storage, lambda _: self._forget(key))
        self._storages[key] = (reference, storage.nbytes(), False)
        self.other += storage.nbytes()

    def _complete(self, parameter: Tensor) -> None:
        """A parameter's gradient is complete: from now on it counts by its share."""
        assert parameter.grad is not None
        key = id(parameter.grad.untyped_storage())
        if key in self._storages and not self._storages[key][2]:
            reference, size, _ = self._storages[key]
            self._storages[key] = (reference, size, True)
            self.other, self.gradients = self.other - size, self.gradients + size

    def _forget(self, key: int) -> None:
        _, size, is_gradient = self._storages.pop(key)
        if is_gradient:
            self.gradients -= size
        else:
            self.other -= size

    def _weigh(self) -> None:
        self.peak = max(self.peak, self.other + self.gradient_share * self.gradients)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Sum of the tensors' sizes in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fake_mode() -> Any:
    """A context in which tensors have no content."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()
