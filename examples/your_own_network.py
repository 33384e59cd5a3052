"""The anatomy of a network of your own: functional layers, a block used twice, a residual.

Run: python examples/your_own_network.py

Measured with PyTorch 2.13 on CPU: 12,138 parameters, 1.20 G MACs for a batch of 64; the stem's
batch norm folds (largest float64 difference below 1e-15); the other one stays, because the
convolution before it runs twice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs


class Recurrent(nn.Module):
    """A stem, then one residual block applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2), nn.BatchNorm2d(32))
        self.conv = nn.Conv2d(32, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (n, 10) of images (n, 3, h, w)."""
        x = F.relu(self.stem(x))
        for _ in range(2):
            x = F.relu(x + self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


def main() -> None:
    """Print what every layer costs, and where each batch norm goes."""
    model = Recurrent()
    print(cs.cost(model, (64, 3, 64, 64)))
    folded = cs.fold(model.eval(), (2, 3, 64, 64))
    print(folded)
    image = torch.rand(3, 64, 64)
    print(cs.project(model, image, layer="conv#2", unit=5))


if __name__ == "__main__":
    main()
