"""Other entries in PyTorch's dispatcher, in force in one thread at a time.

The dispatcher belongs to the process, and an entry that is taken back while another thread runs operators
crashes that thread. So entries are made once and stay; call by call they ask whether their thread has a
handler. Without one they run the kernel that was there before, or go on below where there was none.

Limits: while entries are made, which takes some 20 ms once in a process, no other thread may run operators
at their dispatch key.
"""

import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.library import Library, get_kernel

Handler = Callable[[str, Any, Any], Any]
"""Called with an operator's name, its positional and its keyword arguments; returns its result, or
NotImplemented to let the call go on below the dispatch key."""


def operator_of(name: str) -> Any:
    """Return the ATen operator of a name such as ``"conv2d"`` or ``"softmax.int"``."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


class Overrides:
    """ATen operators' entries at one dispatch key, made when it is constructed, for the process's life.

    Args:
        names: of the operators (``"conv2d"``, ``"softmax.int"``).
        key: the dispatch key, such as ``"AutocastCPU"``.
    """

    def __init__(self, names: Iterable[str], key: str) -> None:
        self._key = torch._C.DispatchKey.__members__[key]
        self._below = torch._C._dispatch_keyset_full_after(self._key)
        self._thread = threading.local()
        # All kernels are looked up before any is replaced.
        kernels = {name: self._kernel(name) for name in names}
        self._library = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            for name, kernel in kernels.items():
                self._library.impl(name, kernel, key, with_keyset=True)  # type: ignore[no-untyped-call]

    def exchange(self, handler: Handler | None) -> Handler | None:
        """Set the handler of the caller's thread; return the one before, both None where there is none."""
        before: Handler | None = getattr(self._thread, "handler", None)
        self._thread.handler = handler
        return before

    def _kernel(self, name: str) -> Callable[..., Any]:
        operator, thread, below = operator_of(name), self._thread, self._below
        before = None
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", self._key):
            before = get_kernel(f"aten::{name}", self._key)

        def kernel(keys: Any, *args: Any, **kwargs: Any) -> Any:
            handler = getattr(thread, "handler", None)
            if handler is not None:
                result = handler(name, args, kwargs)
                if result is not NotImplemented:
                    return result
            elif before is not None:
                return before.call_boxed(keys, *args, **kwargs)
            return operator.redispatch(keys & below, *args, **kwargs)

        return kernel
