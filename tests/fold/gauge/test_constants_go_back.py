"""Constants, which gains of 0 make, are written by the layer before where it can."""

import pytest
import torch
from torch import Tensor, nn

from convscope.fold import fold


class Sized(nn.Module):
    """Reads its batch norm's value once more if it is given larger inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.b, self.d = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.c(x))
        z = self.d(y)
        return z if y.shape[2] < 8 else z + y.mean()


def _with_a_zero(model: nn.Module, *, offset: bool) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[1] = 0
            if not offset:
                module.bias.data[1] = 0
    return model.double()


@pytest.mark.parametrize("offset", [False, True])
def test_readers_that_no_recording_shows_get_what_they_did(randomised, offset: bool) -> None:
    parts = (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(2))
    net = _with_a_zero(randomised(nn.Sequential(next(parts), Sized(), next(parts))), offset=offset)
    folded = fold(net, (2, 3, 6, 7))
    assert [(entry.verdict, entry.into) for entry in folded.ledger.entries] == [
        ("folded", "0.0#1"), ("folded", "1.c#1"), ("folded", "2.0#1"),
    ]  # fmt: skip
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(folded.model(x), net(x), rtol=0, atol=1e-12)


def test_what_has_to_go_on_is_compared_in_its_other_channels(randomised) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    folded = fold(_with_a_zero(randomised(net), offset=True), (2, 3, 6, 7))
    (entry,) = folded.ledger.entries
    assert (entry.verdict, entry.into) == ("folded", "3#1")
    assert entry.max_error is not None
    assert entry.max_error < 1e-12
