"""A process's share of a batch in micro-batches: less memory for the same gradient.

The gradient of a batch's mean loss is the sum of its micro-batches' mean losses' gradients, each weighed by
its share of the images, as long as no layer lets images see one another. Batch norms do: each normalises a
micro-batch by itself.
"""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig


def check_accumulation(config: TrainConfig, num_processes: int) -> None:
    """Check that every micro-batch of a whole batch has two images on every process, for batch norm.

    Raises:
        ConvscopeError: it hasn't.
    """
    smallest = config.batch_size // num_processes // config.accumulation
    if config.accumulation > 1 and smallest < 2:
        raise ConvscopeError(
            f"batch_size={config.batch_size} in {config.accumulation} micro-batches on {num_processes} "
            "process(es)",
            "at least two images in each",
            f"set batch_size to {2 * config.accumulation * num_processes} or more, or accumulate fewer",
        )


def num_micro_batches(batch_size: int, num_processes: int, accumulation: int) -> int:
    """Return into how many micro-batches every process cuts its share of a batch.

    An epoch's last batch may be smaller: then as many as leave two images in each.

    Example:
        >>> num_micro_batches(16, 2, 4), num_micro_batches(9, 2, 4), num_micro_batches(1, 1, 4)
        (4, 2, 1)
    """
    return max(1, min(accumulation, batch_size // num_processes // 2))


def micro_batches(pixels: Tensor, labels: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a share's micro-batches in order; their sizes differ by at most one image.

    Args:
        pixels: ``(n, C, H, W)``.
        labels: ``(n,)``.
        count: how many, at most n.
    """
    bounds = [len(labels) * number // count for number in range(count + 1)]
    for start, stop in pairwise(bounds):
        yield pixels[start:stop], labels[start:stop]
