"""What one forward pass has autograd save, layer by layer: without lean batch norm, and with it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from convscope.norm.fast.choosing import knows_kernels
from convscope.norm.lean.result import LeanLayer, Savings
from convscope.norm.lean.securing import Extra
from convscope.norm.lean.values import Value


class Account:
    """Adds up bytes while a forward pass runs, for the module that is running.

    Args:
        model: its modules give the layers' names; its parameters and buffers don't count.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.named_modules())
        self._paths = {id(module): path for path, module in reversed(modules)}
        self._standing = {
            tensor.untyped_storage()._cdata
            for _, module in modules
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        }
        self._running = [""]
        self._thread = threading.get_ident()
        self._rows: dict[str, list[int]] = {}

    @property
    def layer(self) -> str:
        """The path of the innermost module that is running."""
        return self._running[-1]

    def is_standing(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter or a buffer, or a view of one."""
        return tensor.untyped_storage()._cdata in self._standing

    def kept(self, value: Value) -> None:
        """Count a value that is saved."""
        self._add(value, is_kept=True)

    def made_again(self, value: Value, extra: Extra) -> None:
        """Count a value that isn't saved, and what is held in its place."""
        self._add(value, is_kept=False)
        row = self._rows[self.layer]
        for source in extra.kept:
            row[1] += 0 if source.is_counted_kept or source.is_standing else source.nbytes
            source.is_counted_kept = True
        row[1] += extra.copied_bytes

    def _add(self, value: Value, *, is_kept: bool) -> None:
        row = self._rows.setdefault(self.layer, [0, 0])
        if value.is_standing:
            return
        if not value.is_counted:
            row[0] += value.nbytes
            value.is_counted = True
        if is_kept and not value.is_counted_kept:
            row[1] += value.nbytes
            value.is_counted_kept = True

    @contextmanager
    def following(self) -> Iterator[None]:
        """Know which module is running, while the block runs."""
        hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @knows_kernels
    def _enter(self, module: nn.Module, _args: Any) -> None:
        if threading.get_ident() == self._thread:
            self._running.append(self._paths.get(id(module), self.layer))

    @knows_kernels
    def _leave(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        if threading.get_ident() == self._thread and len(self._running) > 1:
            self._running.pop()

    def savings(self) -> Savings:
        """Return what has been counted."""
        layers = tuple(LeanLayer(path, *row) for path, row in self._rows.items() if any(row))
        return Savings(
            layers,
            sum(layer.bytes_without for layer in layers),
            sum(layer.bytes_kept for layer in layers),
        )
