"""Which images each optimizer step sees, and what is random in a run.

Everything random is a function of the seed and of a place in the run: the order of an epoch, the draws of
a sample's augmentation, the draws of a step (dropout). So a run can be taken up at any step, with any
number of loading workers, without storing the state of a generator.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from convscope.core.errors import ConvscopeError
from convscope.core.seeds import derived_seed


def reseed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators (CUDA's where CUDA is in use)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (augmentation libraries draw from the global generator)
    # torch.manual_seed would wake every accelerator's module, at a hundred times the cost.
    torch.default_generator.manual_seed(seed)
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if in_use and not torch.cuda._is_in_bad_fork():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Run a block after which the global CPU generators are as they were before."""
    python, torch_state = random.getstate(), torch.default_generator.get_state()
    numpy = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.default_generator.set_state(torch_state)


@dataclass(frozen=True)
class Order:
    """The batches of every epoch.

    A last batch of fewer images is kept if each process gets at least two of them, since batch norm can't
    normalise one image whose map is a single pixel; otherwise those images sit the epoch out (another
    shuffle leaves out others).

    Attributes:
        num_images: training images.
        batch_size: images in a step, over all processes.
        num_processes: processes that share every batch.
        seed: the run's seed.

    Raises:
        ConvscopeError: there are too few images for a single step, or more processes than images in a batch.

    Example:
        >>> Order(num_images=9, batch_size=4, num_processes=1, seed=0).steps_per_epoch
        2
    """

    num_images: int
    batch_size: int
    num_processes: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < self.num_processes:
            raise ConvscopeError(
                f"batch_size={self.batch_size} for {self.num_processes} processes",
                "at least one image for each process",
                f"set batch_size to {2 * self.num_processes} or more",
            )
        if self.steps_per_epoch == 0:
            raise ConvscopeError(
                f"{self.num_images} training image(s) for {self.num_processes} process(es)",
                f"at least {2 * self.num_processes}",
                "add images",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        whole, rest = divmod(self.num_images, self.batch_size)
        return whole + (rest >= 2 * self.num_processes)

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the indices of the images of each step of an epoch (from 0), over all processes."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        order = torch.randperm(self.num_images, generator=generator).tolist()
        starts = range(0, self.steps_per_epoch * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size] for start in starts]


def share(batch: list[int], process: int, num_processes: int) -> list[int]:
    """Return one process's consecutive share of a batch; shares differ by at most one image.

    Example:
        >>> [share([7, 5, 3, 1, 2], process, 2) for process in (0, 1)]
        [[7, 5], [3, 1, 2]]
    """
    bounds = [len(batch) * rank // num_processes for rank in (process, process + 1)]
    return batch[bounds[0] : bounds[1]]
