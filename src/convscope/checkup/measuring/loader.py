"""What a data loader says of itself, before it is read."""

from typing import Any

from convscope.checkup.observed import LoaderFacts


def loader_facts(data: Any) -> LoaderFacts | None:
    """Return what a ``DataLoader`` says of its batches; None for other data, or if it has no length."""
    return None
