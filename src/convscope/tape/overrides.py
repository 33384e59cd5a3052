"""Other entries in PyTorch's dispatcher, for a while."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.library import Library

Kernel = Callable[..., Any]


def operator_of(name: str) -> Any:
    """Return the ATen operator of a name such as ``"conv2d"`` or ``"softmax.int"``."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


class Overrides(AbstractContextManager["Overrides"]):
    """ATen operators' entries at one dispatch key, in force from construction until the block's end.

    They hold for the whole process; entries that others make and take back meanwhile don't mix with them.

    Args:
        kernels: by operator name (``"conv2d"``, ``"softmax.int"``).
        key: the dispatch key, such as ``"AutocastCPU"``.
    """

    def __init__(self, kernels: Mapping[str, Kernel], key: str) -> None:
        self._library = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            for name, kernel in kernels.items():
                self._library.impl(name, kernel, key)  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        self._library._destroy()  # type: ignore[no-untyped-call]
