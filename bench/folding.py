"""Test-time speed of a folded network, against the network as it was and a twin without batch norm.

ZFNet at 3 × 224 × 224, batch 4, evaluation mode. A ratio of 1.00 against the twin means that folded batch
norm costs nothing.
"""

import torch

from bench.clock import interleaved, markdown
from convscope.fold import fold
from convscope.networks import zfnet


def table() -> str:
    """Return the ratios of medians."""
    shape = (4, 3, 224, 224)
    before = zfnet(norm="batch").eval()
    networks = {"folded": fold(before, shape).model, "before": before, "twin": zfnet(norm="none").eval()}
    inputs = torch.randn(shape)

    def run(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model(inputs)

    seconds = interleaved({name: lambda model=model: run(model) for name, model in networks.items()})
    rows = [
        ("folded / with batch norm", f"{seconds['folded'] / seconds['before']:.3f}"),
        ("folded / twin without batch norm", f"{seconds['folded'] / seconds['twin']:.3f}"),
    ]
    return markdown(("pair", "ratio"), rows)
