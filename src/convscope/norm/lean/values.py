"""What a tensor holds at one moment of a forward pass, what it was computed from, and who keeps it.

A :class:`Value` is a storage's content between two writes. It may have an :class:`Origin`: the operator that
made it and that operator's arguments, themselves values. Nothing here keeps a tensor alive for being known: a
value is forgotten with its storage, and arguments are weak until an origin is secured (``securing``). Then
every tensor that it goes back to is held, most of them by autograd anyway.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.core.large_pages import advised

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]
Hooks = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]


def geometry(tensor: Tensor) -> Geometry:
    """Return a tensor's shape, strides and offset in its storage."""
    return tensor.shape, tensor.stride(), tensor.storage_offset()  # type: ignore[return-value]  # no SymInt


class Kept:
    """A tensor that is kept for the backward pass, as it is now.

    Args:
        tensor: to keep; the result of the operator that saves it is kept outside of the graph, in which it
            would hold on to itself.
        layer: that saves it.
        hooks: to pack and unpack it with, such as those which move what is saved to another device; None to
            keep the tensor itself.
    """

    __slots__ = ("__weakref__", "_hooks", "_layer", "_packed", "_version")

    def __init__(self, tensor: Tensor, layer: str, hooks: Hooks | None) -> None:
        node = tensor.grad_fn
        if node is not None and node._sequence_nr() == torch._C._autograd._get_sequence_nr() - 1:
            tensor = tensor.detach()
        self._hooks, self._layer = hooks, layer
        self._version = tensor._version
        self._packed = tensor if hooks is None else hooks[0](tensor)

    @property
    def is_intact(self) -> bool:
        """Whether nobody has written to it."""
        return self._hooks is not None or bool(self._packed._version == self._version)

    def unpacked(self) -> Tensor:
        """Return the tensor.

        Raises:
            ConvscopeError: it was changed in place.
        """
        if self._hooks is not None:
            return self._hooks[1](self._packed)
        if not self.is_intact:
            shape = "×".join(map(str, self._packed.shape))
            raise ConvscopeError(
                f"a tensor of {shape} that {self._layer or 'the network'} saved for its gradient, changed in "
                "place since",
                "the tensor as it was",
                "write the operator that changes it in its other form (x = x + 1 for x += 1)",
            )
        return self._packed


class Argument:
    """One tensor among an operator's arguments.

    Attributes:
        value: what it holds.
        geometry: its place in the value's storage.
        held: holds it once its origin is secured: who keeps it, or a copy; None if it is made again.
    """

    __slots__ = ("_tensor", "_version", "geometry", "held", "value")

    def __init__(self, value: "Value", tensor: Tensor, *, is_small: bool) -> None:
        self.value = value
        place = geometry(tensor)
        self.geometry = value.geometry if place == value.geometry else place
        self.held: Kept | Tensor | None = None
        # A view of a parameter lives no longer than the call.
        self._tensor: Tensor | weakref.ref[Tensor] | None = tensor if is_small else weakref.ref(tensor)
        self._version = tensor._version

    @property
    def tensor(self) -> Tensor | None:
        """The tensor itself, if it is still there and as it was."""
        tensor = self._tensor() if isinstance(self._tensor, weakref.ref) else self._tensor
        return tensor if tensor is not None and tensor._version == self._version else None

    def hold(self, holder: Kept | Tensor) -> None:
        """Have the argument held by who keeps its value, or by a copy of itself."""
        self.held, self._tensor = holder, None

    def placed_held(self) -> Tensor:
        """Return the argument from what holds it."""
        assert self.held is not None
        return self.placed(self.held.unpacked()) if isinstance(self.held, Kept) else self.held

    def placed(self, tensor: Tensor) -> Tensor:
        """Return the argument's place in a tensor with the value's storage."""
        return tensor if geometry(tensor) == self.geometry else tensor.as_strided(*self.geometry)


class Origin:
    """The operator that made a value.

    Attributes:
        func: to run again; it has no effects.
        kwargs: its keyword arguments, none of them a tensor.
        arguments: the tensors among its arguments.
        results: weak references to the values that it made, in order; None for one that isn't made again.
        is_secured: whether everything that it goes back to is held.
    """

    __slots__ = ("_args", "arguments", "func", "is_secured", "kwargs", "results")

    def __init__(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], note: Callable[[Tensor], Argument]
    ) -> None:
        self.func, self.kwargs = func, kwargs
        self.arguments: list[Argument] = []
        self.results: list[weakref.ref[Value] | None] = []
        self.is_secured = False
        self._args = _noted(args, note, self.arguments)

    def given(self, tensor_of: Callable[[Argument], Tensor]) -> list[Any]:
        """Return its arguments, with tensors in the places of tensors."""
        return _with_tensors(self._args, tensor_of)


# Not closures: one that calls itself is a cycle, and would keep tensors alive after the call.
def _noted(items: Any, note: Callable[[Tensor], Argument], arguments: list[Argument]) -> list[Any]:
    noted: list[Any] = []
    for item in items:
        if isinstance(item, Tensor):
            arguments.append(note(item))
            noted.append(arguments[-1])
        else:
            noted.append(_noted(item, note, arguments) if isinstance(item, list | tuple) else item)
    return noted


def _with_tensors(items: list[Any], tensor_of: Callable[[Argument], Tensor]) -> list[Any]:
    return [
        tensor_of(item)
        if isinstance(item, Argument)
        else (_with_tensors(item, tensor_of) if isinstance(item, list) else item)
        for item in items
    ]


class Value:
    """A storage's content between two writes.

    Attributes:
        origin: what made it, or None if it can't be made again.
        geometry: of the tensor that the operator returned.
        dtype: of that tensor.
        device: its type, such as ``"cpu"``.
        nbytes: of the storage.
        cache: the content, made again, while it is awaited.
        recipes: how many saved tensors are recipes for it.
        round: how often its recipes have begun to be used.
        is_standing: whether it is a parameter or a buffer.
        is_counted: whether its bytes are in the account of what is saved without lean batch norm.
        is_counted_kept: whether they are in that of what is kept with it.
    """

    __slots__ = (
        "__weakref__", "_awaited", "_keeper", "cache", "device", "dtype", "geometry", "is_counted",
        "is_counted_kept", "is_standing", "nbytes", "origin", "recipes", "round",
    )  # fmt: skip

    def __init__(self, tensor: Tensor, origin: Origin | None = None) -> None:
        self.origin = origin
        self.geometry, self.dtype, self.device = geometry(tensor), tensor.dtype, tensor.device.type
        self.nbytes = tensor.untyped_storage().nbytes()
        self.cache: Tensor | None = None
        self.recipes = self.round = self._awaited = 0
        self.is_standing = self.is_counted = self.is_counted_kept = False
        self._keeper: weakref.ref[Kept] | None = None

    @property
    def kept(self) -> Kept | None:
        """Who keeps it, if anyone does and it is as it was."""
        kept = None if self._keeper is None else self._keeper()
        return kept if kept is not None and kept.is_intact else None

    def keep(self, tensor: Tensor, layer: str, hooks: Hooks | None) -> Kept:
        """Return what keeps it, through a tensor of its storage; see :class:`Kept`."""
        kept = Kept(tensor, layer, hooks)
        # Others' hooks may copy a view, and leave the rest of its storage.
        is_whole = tensor.dtype == self.dtype and (hooks is None or geometry(tensor) == self.geometry)
        if is_whole and self.kept is None:
            self._keeper = weakref.ref(kept)
        return kept

    def taken(self, round_of_taker: int) -> int:
        """Note that one of its recipes is used; return the round to note with the recipe.

        A round ends when every recipe has been used once, as in one backward pass. The cache lasts till then.
        """
        if round_of_taker == self.round:
            self.round += 1
            self._awaited = self.recipes
        self._awaited -= 1
        return self.round

    def empty(self) -> Tensor:
        """Return a tensor for its content, with undefined numbers."""
        shape, strides, _ = self.geometry
        return advised(torch.empty_strided(shape, strides, dtype=self.dtype, device=self.device))

    @property
    def is_awaited(self) -> bool:
        """Whether a recipe for it will be used again in this round."""
        return self._awaited > 0
