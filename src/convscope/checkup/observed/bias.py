"""What one training step with a random loss says about a bias."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BiasGradient:
    """What a random projection of the outputs, differentiated in training mode, says about a bias.

    Attributes:
        name: the parameter.
        address: the first module call that adds it.
        channels: its elements.
        signed: Σ over channels of |Σ dy|: the gradient of the bias.
        absolute: Σ |dy|, what that gradient would be if nothing cancelled.
        norms: the batch norms that alone read what it was added to; empty if others do.
        running_mean: name of the buffer that can take the bias in exactly, since nothing else is normalised
            by it; None if there is none.
        precise: whether gradients were in float32 or wider.
        is_zero: whether all of its values are 0.
        is_used: whether what it is added to has a part in what the network returns.
    """

    name: str
    address: str
    channels: int
    signed: float
    absolute: float
    norms: tuple[str, ...]
    running_mean: str | None
    precise: bool
    is_zero: bool = False
    is_used: bool = True
