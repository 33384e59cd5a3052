"""What an optimizer holds of a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptimizerFacts:
    """What is to be known about the optimizer.

    Attributes:
        decay: weight decay by name of each parameter of the model that it holds.
        num_foreign: parameters that it holds and that aren't the model's.
        missing: names of the model's trainable parameters that it doesn't hold.
        kind: its class's name.
        has_stepped: whether it holds state of past steps; None for one that never does, such as plain SGD.
    """

    decay: dict[str, float]
    num_foreign: int
    missing: tuple[str, ...]
    kind: str = ""
    has_stepped: bool | None = None
