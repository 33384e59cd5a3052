"""One process's pass over its share of the images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, Visit, probing
from convscope.sight.collecting.progress import Progress
from convscope.sight.collecting.ranges import Ranges
from convscope.sight.collecting.reading import numbered
from convscope.sight.images import ImageSource
from convscope.sight.projecting.projector import for_model


def pass_over(
    model: nn.Module, images: ImageSource, share: Ranges, progress: Progress, after: Callable[[], None]
) -> None:
    """Run a model on a share of the images and take note of what its layers show.

    Args:
        model: runs in evaluation mode and comes back as it was.
        images: all of them.
        share: numbers of the batches to look at.
        progress: what is filled in; it is a whole number of batches whenever ``after`` is called.
        after: called after every batch.

    Raises:
        ConvscopeError: the model doesn't take the images, an activation is NaN, or maps change their size.
    """
    indices: list[int] = []
    number = 0
    left: set[str] = set()

    def reader(visit: Visit, result: Any) -> None:
        # Normalisations return their statistics besides their maps.
        maps = result[0] if isinstance(result, tuple) else result
        address = str(visit.site.address)
        progress.tallies[address].add(maps, indices, number)
        left.discard(address)

    with torch.inference_mode(False), torch.no_grad(), repeatable(), probing(model) as probe:
        for address in progress.tallies:
            probe.read(address, reader)
        batches = numbered(images, share)
        while True:
            with probe.paused():
                number, indices, pixels = next(batches, (-1, [], None))
            if number < 0:
                return
            left = set(progress.tallies)
            if pixels is not None:
                with named_failure(pixels, indices, probe):
                    model(for_model(model, pixels))
            progress.finish(number, len(indices), left)
            after()


@contextmanager
def repeatable() -> Iterator[None]:
    """Run a block in which cuDNN takes the same algorithm for the same convolution every time."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before


@contextmanager
def named_failure(tensor: Float[Tensor, "n c h w"], indices: list[int], probe: Probe) -> Iterator[None]:
    """Run a model on a batch; what goes wrong is told with the images and the module.

    Raises:
        ConvscopeError: the model doesn't take the images.
    """
    try:
        yield
    except ConvscopeError:
        raise
    except Exception as error:
        raise _not_taken(tensor, indices, probe.attribution.failed_in, error) from error


def _not_taken(tensor: Tensor, indices: list[int], where: str, error: Exception) -> ConvscopeError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConvscopeError(
        f"images {indices[0]} to {indices[-1]} of shape {tuple(tensor.shape[1:])} fail in {where} ({reason})",
        "images of the size and channels that the network takes",
        "resize them",
    )
