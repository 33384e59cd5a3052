"""What the processes of a distributed run show beside one another."""

from torch import nn

from convscope.checkup.observed import ProcessFacts


def process_facts(model: nn.Module) -> ProcessFacts | None:
    """Return what the processes of the default group show; None in a single process.

    Every process of the group must call this.
    """
    return None
