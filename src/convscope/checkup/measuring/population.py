"""The population's statistics of one batch norm call's inputs, pooled over batches in float64.

Every image gives two numbers per channel: the mean of its values and their mean squared deviation. All else
follows from those: the pooled mean and variance, by true counts (the merge of Chan, Golub and LeVeque), and
how far they can be trusted. Images are independent draws, positions within one aren't; so standard errors
are taken over images.

Axis letters: N images, C channels, S positions.
"""

import hashlib

import torch
from torch import Tensor

from convscope.checkup.observed.population import Population

_CHUNK_VALUES = 2**22


class Pool:
    """Gathers a :class:`Population`, batch by batch.

    Example:
        >>> pool = Pool()
        >>> pool.add(torch.tensor([[1.0], [3.0]]), torch.tensor([[-1.0], [1.0]])).mean
        tensor([2.], dtype=torch.float64)
        >>> _ = pool.add(torch.tensor([[8.0]]), torch.tensor([[6.0]]))
        >>> found = pool.population()
        >>> found.mean.item(), found.variance.item(), found.largest_output.item()
        (4.0, 13.0, 6.0)
    """

    def __init__(self) -> None:
        self._values = Moments()
        self._images = Moments()
        self._squares = Moments()
        self._batches: list[tuple[int, int]] = []
        self._sizes: dict[int, _OfOneSize] = {}
        self._largest: Tensor | None = None

    def add(self, x_NCS: Tensor, output_NCS: Tensor) -> "Moments":
        """Take in one batch of inputs (N, C, *) and what the layer made of it; return the batch's moments."""
        mean_NC, square_NC = per_image(x_NCS)
        images, positions = mean_NC.shape[0], x_NCS[0, 0].numel()
        mean_C = mean_NC.mean(0)
        square_NC = square_NC + (mean_NC - mean_C).square()
        batch = Moments()
        batch.merge(images * positions, mean_C, square_NC.sum(0) * positions)
        self._values.merge(batch.count, batch.mean, batch.m2)
        within_C = (mean_NC - mean_C).square().sum(0)
        self._images.merge(images, mean_C, within_C)
        self._sizes.setdefault(positions, _OfOneSize()).add(images, mean_C, within_C)
        of_square_C = square_NC.mean(0)
        self._squares.merge(images, of_square_C, (square_NC - of_square_C).square().sum(0))
        self._batches.append((images, images * positions))
        axes = (0, *range(2, output_NCS.dim()))
        largest_C = output_NCS.amax(axes).double().cpu()
        self._largest = largest_C if self._largest is None else self._largest.maximum(largest_C)
        return batch

    def population(self) -> Population:
        """Return the statistics of everything taken in so far, at least one batch."""
        assert self._largest is not None
        sizes = list(self._sizes.values())
        largest = max(images for images, _ in self._batches)
        free = sum(size.num_batches - 1 for size in sizes)
        between_C = torch.stack([size.between.m2 for size in sizes]).sum(0)
        within_C = torch.stack([size.within for size in sizes]).sum(0)
        free_within = sum(size.between.count - size.num_batches for size in sizes)
        return Population(
            num_values=self._values.count,
            num_images=self._images.count,
            num_batches=len(self._batches),
            batch_images=largest,
            batch_values=max(values for _, values in self._batches),
            least_values=min(values for _, values in self._batches),
            mean=self._values.mean,
            variance=self._values.variance(single=0.0),
            image_variance=self._images.variance(single=float("nan")),
            square_variance=self._squares.variance(single=float("nan")),
            # Σ n_b (μ_b − μ)² / (B − 1) estimates images' variance whatever the n_b; over n, that of batches.
            batch_variance=between_C / free / largest if free else torch.full_like(between_C, float("nan")),
            largest_output=self._largest,
            comparable_batches=free + 1,
            within=within_C / free_within if free_within else torch.full_like(within_C, float("nan")),
            free_within=free_within,
        )


class _OfOneSize:
    """Distinct batches of as many positions an image: larger images are another distribution.

    Attributes:
        num_batches: how many they are.
        between: moments of their means, each with the weight of its images.
        within: Σ over their images of (mean − its batch's)².
    """

    def __init__(self) -> None:
        self.num_batches = 0
        self.between = Moments()
        self.within = torch.zeros(())
        self._seen: set[bytes] = set()

    def add(self, images: int, mean_C: Tensor, within_C: Tensor) -> None:
        """Take in a batch, unless it has been here before."""
        known = hashlib.sha1(torch.cat((mean_C, within_C)).numpy().tobytes(), usedforsecurity=False).digest()
        if known in self._seen:
            return
        self._seen.add(known)
        self.num_batches += 1
        self.between.merge(images, mean_C, torch.zeros_like(mean_C))
        self.within = self.within + within_C


class Moments:
    """Count, mean and sum of squared deviations per channel, in float64; merged exactly.

    Attributes:
        count: values per channel.
        mean, m2: (C,).
    """

    def __init__(self) -> None:
        self.count, self.mean, self.m2 = 0, torch.zeros(()), torch.zeros(())

    def merge(self, count: int, mean: Tensor, m2: Tensor) -> None:
        """Take in the moments of ``count`` more values; none change nothing."""
        if count == 0:
            return
        if self.count == 0:
            self.count, self.mean, self.m2 = count, mean, m2
            return
        total, delta = self.count + count, mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + delta.square() * (self.count * count / total)
        self.count = total

    def variance(self, single: float) -> Tensor:
        """Return the unbiased variance; ``single`` where there are fewer than two values."""
        if self.count < 2:
            return torch.full_like(self.mean, single)
        return self.m2 / (self.count - 1)


def per_image(x_NCS: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation of each image's channels, (N, C) in float64; few images at a time."""
    images = max(1, _CHUNK_VALUES // max(1, x_NCS[0].numel()))
    means, squares = [], []
    for chunk in torch.split(x_NCS.detach(), images):
        wide_NCS = chunk.double().reshape(*chunk.shape[:2], -1)
        square_NC, mean_NC = torch.var_mean(wide_NCS, dim=2, correction=0)
        means.append(mean_NC.cpu())
        squares.append(square_NC.cpu())
    return torch.cat(means), torch.cat(squares)


def spread_of_images(x_NCS: Tensor) -> Tensor:
    """Each image's mean squared deviation from the channels' means over all images, (N, C) in float64."""
    mean_NC, square_NC = per_image(x_NCS)
    return square_NC + (mean_NC - mean_NC.mean(0)).square()
