"""What a data loader says of itself, before it is read."""

from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from convscope.checkup.observed import LoaderFacts

_SHUFFLED = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def loader_facts(data: Any) -> LoaderFacts | None:
    """Return what a ``DataLoader`` says of its batches; None for other data, or if it has no length.

    None as well for batch samplers of other classes than PyTorch's own, whose batches could be of any size.

    Example:
        >>> facts = loader_facts(DataLoader(range(65), batch_size=32, shuffle=True))
        >>> facts.num_samples, facts.last_batch, facts.drop_last, facts.shuffles
        (65, 1, False, True)
    """
    batches = getattr(data, "batch_sampler", None) if isinstance(data, DataLoader) else None
    if type(batches) is not BatchSampler:
        return None
    try:
        num_samples = len(batches.sampler)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None
    rest = num_samples % batches.batch_size
    sampler = batches.sampler
    return LoaderFacts(
        num_samples=num_samples,
        batch_size=batches.batch_size,
        last_batch=batches.batch_size if batches.drop_last or not rest else rest,
        drop_last=batches.drop_last,
        shuffles=sampler.shuffle
        if isinstance(sampler, DistributedSampler)
        else isinstance(sampler, _SHUFFLED),
    )
