"""Local response normalisation: AlexNet's competition between neighbouring channels."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.engine.statistics import widened
from convscope.norm.layers.checks import check_floating


class LocalResponseNorm(nn.Module):
    """Local response normalisation over channels (N, C, …), as AlexNet published it.

        b_i = a_i / (k + α Σ_j a_j²)^β,   j over the ``size`` channels around i that exist

    with k = 2, n = 5, α = 1e-4, β = 0.75 in the paper, which are the defaults. ``torch.nn.LocalResponseNorm``
    reads its ``alpha`` as the weight of the window's *average*, α·size in the formula above, as Caffe did,
    and has k = 1 by default; ``average=True`` takes PyTorch's ``alpha``.

    Args:
        size: n, the channels of a window; for an even one, one more lies before the channel than after it.
        alpha: α, the weight of the sum of squares (of their average with ``average=True``).
        beta: β, the exponent.
        k: the constant.
        average: whether squares are averaged over ``size`` (PyTorch's and Caffe's convention), not summed.

    Raises:
        ConvscopeError: ``size`` isn't positive.

    Source:
        Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
        Networks", NeurIPS 2012, section 3.3.

    Example:
        >>> import torch
        >>> layer = LocalResponseNorm(size=3, alpha=1.0, beta=1.0, k=0.0)
        >>> layer(torch.tensor([[[1.0], [2.0], [1.0]]])).flatten().tolist()  # 1/(1+4), 2/(1+4+1), 1/(4+1)
        [0.20000000298023224, 0.3333333432674408, 0.20000000298023224]
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, average: bool = False
    ) -> None:
        super().__init__()
        if size < 1:
            raise ConvscopeError(f"LocalResponseNorm of size {size}", "at least one channel", "use size=5")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.average = average

    def forward(self, x: Float[Tensor, "n c *s"]) -> Float[Tensor, "n c *s"]:
        """Return the normalised responses, in the shape, dtype and layout of ``x``.

        Half precision is computed in float32 and rounded once: 256² overflows float16.

        Raises:
            ConvscopeError: ``x`` has fewer than two dimensions or isn't floating point.
        """
        if x.dim() < 2:
            raise ConvscopeError(
                f"LocalResponseNorm given an input of shape {tuple(x.shape)}",
                "shape (N, C, …)",
                "add the dimensions",
            )
        check_floating(self, x)
        alpha = self.alpha / self.size if self.average else self.alpha
        wide = widened(x)
        denominator = self._window_sums(wide.square()).mul_(alpha).add_(self.k).pow(self.beta)
        return (wide / denominator).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the settings for the module's printed form."""
        convention = ", average=True" if self.average else ""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}{convention}"

    def _window_sums(self, squares: Tensor) -> Tensor:
        """Return for every channel the sum over its window, by adding shifted views of padded squares."""
        before = self.size // 2
        padded = F.pad(squares, (0, 0) * (squares.dim() - 2) + (before, self.size - 1 - before))
        channels = squares.shape[1]
        total = padded.narrow(1, 0, channels).clone()
        for shift in range(1, self.size):
            total.add_(padded.narrow(1, shift, channels))
        return total
