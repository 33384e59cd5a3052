"""The statistics of one batch norm call's inputs over all batches, and what a batch of them is worth."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Population:
    """Statistics of a batch norm call's inputs, per channel, in float64 on the CPU.

    Attributes:
        num_values: values per channel, all batches together.
        num_images: images, all batches together.
        num_batches: batches.
        batch_images: images in the largest batch.
        batch_values: values per channel in the largest batch.
        least_values: values per channel in the smallest batch.
        mean: pooled mean.
        variance: pooled unbiased variance; 0 where there is only one value.
        image_variance: variance of single images' means; NaN for one image.
        square_variance: variance over images of their mean squared deviation; NaN for one image.
        batch_variance: variance of batch means, as for batches of ``batch_images``; NaN for one batch. They
            are compared with others of as many positions an image; one that is repeated counts once.
        largest_output: the largest value that the layer put out.
        comparable_batches: one more than the degrees of freedom of that variance; None for all batches.
        within: variance of images' means about those of their batches, over these; None if not measured.
        free_within: its degrees of freedom.
    """

    num_values: int
    num_images: int
    num_batches: int
    batch_images: int
    batch_values: int
    least_values: int
    mean: Tensor
    variance: Tensor
    image_variance: Tensor
    square_variance: Tensor
    batch_variance: Tensor
    largest_output: Tensor
    comparable_batches: int | None = None
    within: Tensor | None = None
    free_within: int = 0

    @property
    def num_compared(self) -> int:
        """How many batches tell how batches differ: all, less one for every further size and repetition."""
        return self.num_batches if self.comparable_batches is None else self.comparable_batches

    @property
    def effective_values(self) -> float | None:
        """How many independent values a batch is worth: σ² / Var(batch means), harmonic mean over channels.

        Var(batch means) is measured between batches where there are at least four, and follows from the
        single images' means otherwise, as if images were drawn independently; None for one image, or if
        no channel varies.
        """
        if self.num_compared < 4:
            return self.effective_from_images
        return self._worth(self.batch_variance)

    @property
    def effective_from_images(self) -> float | None:
        """The same, as if images were drawn independently; None for one image, or if no channel varies."""
        return self._worth(self.image_variance / self.batch_images)

    def _worth(self, between_C: Tensor) -> float | None:
        varies_C = (self.variance > 0) & between_C.isfinite()
        share = (between_C[varies_C] / self.variance[varies_C]).mean() if varies_C.any() else None
        return float(1 / share) if share is not None and share > 0 else None
