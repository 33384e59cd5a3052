"""Which training steps are measured on a GPU, and how one of them is named.

The rule: each of the networks gets six steps. Steps are numbered network by network; number n takes the
(7·n)th of the twelve setups (optimizer × precision × layout) and the (4·n)th of the nine batches, both
counted round. Seven and twelve, and four and nine, have no common divisor, so that every setup and every
batch comes up equally often, or once less, and no network gets a batch twice. The first step of each network
is measured, then the second of each, and so on: what a short run measures is spread evenly, too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from convscope.tape import TrainingPlan

NETWORKS = (
    "alexnet",
    "zfnet",
    "torchvision:vgg16",
    "torchvision:resnet18",
    "timm:resnet50",
    "torchvision:densenet121",
    "torchvision:mobilenet_v2",
    "timm:mobilenetv3_large_100",
    "timm:efficientnet_b0",
    "torchvision:convnext_tiny",
    "timm:regnety_016",
)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OPTIMIZERS = ("sgd-momentum", "adamw")
PRECISIONS = ("fp32", "amp-fp16", "amp-bf16")
LAYOUTS = ("contiguous", "channels-last")
STEPS_PER_NETWORK = 6


@dataclass(frozen=True)
class Row:
    """A training step to be measured.

    Attributes:
        network: what :func:`convscope.networks.load` takes.
        batch: images.
        optimizer, precision: as in :class:`convscope.tape.TrainingPlan`.
        layout: ``"contiguous"`` or ``"channels-last"``.
    """

    network: str
    batch: int
    optimizer: str
    precision: str
    layout: str

    @property
    def plan(self) -> TrainingPlan:
        """The training step."""
        return TrainingPlan(
            optimizer=self.optimizer,  # type: ignore[arg-type]
            precision=self.precision,  # type: ignore[arg-type]
            channels_last=self.layout == "channels-last",
        )

    @property
    def label(self) -> str:
        """One line that names it."""
        return f"{self.network} b{self.batch} {self.optimizer} {self.precision} {self.layout}"


def rows() -> tuple[Row, ...]:
    """Return the steps to measure, in order.

    Example:
        >>> len(rows()), rows()[0].label
        (66, 'alexnet b1 sgd-momentum fp32 contiguous')
    """
    return tuple(
        _row(network, STEPS_PER_NETWORK * place + turn)
        for turn in range(STEPS_PER_NETWORK)
        for place, network in enumerate(NETWORKS)
    )


def row_of(fields: Mapping[str, Any]) -> Row:
    """Return the row that a file's entry is about; other fields are left aside."""
    return Row(**{name: fields[name] for name in Row.__dataclass_fields__})


def fields_of(row: Row) -> dict[str, Any]:
    """Return a row as a file's entry begins."""
    return asdict(row)


def _row(network: str, number: int) -> Row:
    setups = list(product(OPTIMIZERS, PRECISIONS, LAYOUTS))
    return Row(network, BATCHES[4 * number % len(BATCHES)], *setups[7 * number % len(setups)])
