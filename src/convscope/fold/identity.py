"""What stands where a folded batch norm was: modules that hand their input on and say what they were."""

from collections import OrderedDict

from torch import nn


class FoldedBatchNorm(nn.Identity):
    """The identity, in the place of a batch norm whose scale and shift now are in a layer's weights.

    Attributes:
        was: the batch norm's printed form, such as ``"BatchNorm2d(8, eps=1e-05, …)"``.
        into: the addresses of the layers that took it in.

    Example:
        >>> FoldedBatchNorm("BatchNorm2d(8)", ("conv1#1",))
        FoldedBatchNorm(was BatchNorm2d(8), now in conv1#1)
    """

    def __init__(self, was: str, into: tuple[str, ...]) -> None:
        super().__init__()
        self.was = was
        self.into = into

    def extra_repr(self) -> str:
        """Return what it was and where that went."""
        return f"was {self.was}, now in {', '.join(self.into)}"


class FoldedBatchNormAct(nn.Sequential):
    """What a batch norm with parts of its own (an activation) still does after its normalisation is folded.

    Attributes:
        was: the batch norm's class and number of channels.
        into: the addresses of the layers that took its normalisation in.
    """

    def __init__(self, was: str, into: tuple[str, ...], parts: dict[str, nn.Module]) -> None:
        super().__init__(OrderedDict(parts))
        self.was = was
        self.into = into

    def extra_repr(self) -> str:
        """Return what it was and where that went."""
        return f"was {self.was}, now in {', '.join(self.into)}"
