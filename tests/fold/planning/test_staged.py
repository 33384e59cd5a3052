"""Folds before a merge: where to see that they are right, once the sum around them is one convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.fold import fold


class Gain(nn.Module):
    """A number per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Branches(nn.Module):
    """Two branches; what stands between the convolution of one and its batch norm is given."""

    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), *between, nn.BatchNorm2d(4))
        self.b = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x) + self.b(x))


@pytest.mark.parametrize("between", [[], [Gain], [nn.Identity, Gain]])
def test_a_fold_inside_a_sum_that_is_merged_isnt_taken_back(
    randomised, between: list[type[nn.Module]]
) -> None:
    branches = Branches(*(kind() for kind in between))
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), branches, nn.Conv2d(4, 2, 3))).double()
    folded = fold(model, (2, 3, 9, 7))
    assert folded.ledger.folded + folded.ledger.merged == 1
    assert sum(isinstance(module, nn.Conv2d) for module in folded.model.modules()) == 3  # one is merged away
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(folded.model(x), model(x), rtol=0, atol=1e-12)
