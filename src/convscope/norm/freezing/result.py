"""What freezing did to a network, and how to take it back."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Self

from torch import nn

from convscope.core.result import Result
from convscope.norm.freezing.frozen import Hold, check_own_class, hold, holder, set_trains, thaw


@dataclass(frozen=True)
class FrozenLayer:
    """One layer, as it was before it was frozen.

    Attributes:
        path: its (first) path in the network; ``""`` for the network itself.
        layer: its class, such as ``"BatchNorm2d"``.
        num_features: C.
        was_training: whether it was in training mode.
        weight_trained: whether gamma had a gradient; None for a layer without gamma.
        bias_trained: likewise for beta.
    """

    path: str
    layer: str
    num_features: int
    was_training: bool
    weight_trained: bool | None
    bias_trained: bool | None


@dataclass(frozen=True, eq=False)
class Change:
    """What one call did to one layer."""

    layer: nn.Module
    now: Hold
    before: Hold | None
    trained: dict[str, bool]


@dataclass(frozen=True)
class Frozen(Result):
    """What :func:`freeze` did, and how to take it back: ``.undo()``, or ``with freeze(model): …``.

    Attributes:
        layers: the layers that it changed, as they were.
        already: paths of layers that were frozen before, and stay so after ``undo``.
        left: paths of modules with running statistics of their own that aren't PyTorch's layers or
            subclasses of them (such as torchvision's ``FrozenBatchNorm2d``): left as they are.
        affine: whether gamma and beta were frozen too.
    """

    layers: tuple[FrozenLayer, ...]
    already: tuple[str, ...]
    left: tuple[str, ...]
    affine: bool
    _changes: tuple[Change, ...] = field(default=(), repr=False, compare=False)
    not_in_json: ClassVar[frozenset[str]] = frozenset({"_changes"})

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the layers that were changed."""
        return tuple(layer.path for layer in self.layers)

    def undo(self) -> None:
        """Give every layer its class, mode and ``requires_grad`` back; its buffers haven't moved.

        The mode is the one that it would have now: as before, or as the last ``.train()`` or ``.eval()``
        since then asked for. Layers that were unfrozen or frozen anew since are left alone. Gradients that
        were dropped don't come back.

        Raises:
            ConvscopeError: a layer's class was changed since (as a parametrisation does); nothing is undone.
        """
        held = [
            (layer.path, change)
            for layer, change in zip(self.layers, self._changes, strict=True)
            if holder(change.layer) is change.now
        ]
        check_own_class((path, change.layer) for path, change in held)
        for _, change in held:
            if change.before is None:
                thaw(change.layer)
            else:
                hold(change.layer, change.before)
            set_trains(change.layer, change.trained)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()
