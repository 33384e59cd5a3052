"""What a report consists of: the results of all readings of one network, and the page that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from convscope.checkup.result import Checkup
from convscope.core.finding import Finding, Severity
from convscope.core.result import Result
from convscope.cost.batch.least import LeastMemory
from convscope.cost.table import Cost
from convscope.fold.ledger import Folded
from convscope.report.graph.network import NetworkGraph
from convscope.report.whole.norm_effect import NormEffect
from convscope.report.whole.ranking import RankedFinding
from convscope.sight.picturing.album import Gallery
from convscope.sight.stems.diagnosis import Stem


@dataclass(frozen=True)
class Subject:
    """What the report is about.

    Attributes:
        network: the reference or the class name.
        input_shape: of one input: (channels, height, width).
        batch_size: images in a training step.
        norm: the normalisation that was asked for; empty where the network brings its own.
        width: factor on every layer's channels; None where the network brings its own.
        weights: where the weights come from, in words.
        data: name of the data; empty if there were none.
        classes: class names, by label.
        num_train, num_validation: images.
        num_left_out: damaged files and the like that the data was read without.
        left_out: each of them, with the reason.
        imbalance: the largest and the smallest class in words; empty if they are about equal.
    """

    network: str
    input_shape: tuple[int, ...]
    batch_size: int
    norm: str
    width: float | None
    weights: str
    data: str
    classes: tuple[str, ...]
    num_train: int
    num_validation: int
    num_left_out: int = 0
    left_out: tuple[str, ...] = ()
    imbalance: str = ""


@dataclass(frozen=True)
class Part:
    """A part of the report that isn't there.

    Attributes:
        name: ``"published"``, ``"training"``, ``"twin"``, ``"checkup"``, ``"fold"``, ``"stem"`` or
            ``"gallery"``.
        reason: why, in a sentence.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Report(Result):
    """The whole anatomy of one network.

    Attributes:
        subject: the network, its input and its data.
        cost: of the network as it was trained and looked at, for one training step.
        published: of the same network at the size of its publication; None if it has none.
        training: the runs with and without the normalisation; None if nothing was trained.
        checkup: of its batch norms on the validation images; None if it wasn't possible.
        folded: the same network with its batch norms folded away, and how fast it is.
        stem: its first convolution.
        gallery: its units.
        findings: the five that matter most, most important first.
        missing: the parts that aren't there, each with the reason.
        page: the page's file.
        folder: the folder with the page, the pictures and the runs.
        seconds: how long everything took.
        versions: of what it was measured with.
        least_memory: of a GPU, for a training step of ``cost``; None in reports of older versions.
        graph: the layers of ``cost``, the modules around them and what each reads.
        written: day and time; empty in reports of older versions.
    """

    subject: Subject
    cost: Cost
    published: Cost | None
    training: NormEffect | None
    checkup: Checkup | None
    folded: Folded | None
    stem: Stem | None
    gallery: Gallery | None
    findings: tuple[RankedFinding, ...]
    missing: tuple[Part, ...]
    page: str
    folder: str
    seconds: float
    versions: dict[str, str]
    least_memory: LeastMemory | None = None
    graph: NetworkGraph | None = None
    written: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, the parts as they render themselves."""
        parts = ("cost", "published", "training", "checkup", "folded", "stem", "gallery")
        own = {name: getattr(self, name) for name in parts}
        values = {name: None if part is None else part.to_dict() for name, part in own.items()}
        return {**super().to_dict(), **values, "counts": self.counts}

    @property
    def counts(self) -> dict[str, Any]:
        """How many there are: findings of each severity by reading, batch norms, units, filters."""
        found = {
            "checkup": self.checkup.findings if self.checkup else (),
            "stem": self.stem.findings if self.stem else (),
            "gallery": self.gallery.findings if self.gallery else (),
        }
        units = [unit for layer in self.gallery.layers for unit in layer.units] if self.gallery else []
        filters = self.stem.filters if self.stem else ()
        return {
            **{name: _by_severity(findings) for name, findings in found.items()},
            "norms": len(self.checkup.layers) if self.checkup else 0,
            "ledger": len(self.folded.ledger) if self.folded else 0,
            "units": len(units),
            "dead_units": sum(unit.dead for unit in units),
            "filters": len(filters),
            "dead_filters": sum(each.dead for each in filters),
        }

    def why_missing(self, name: str) -> str:
        """Return why a part isn't there; empty if it is."""
        return next((part.reason for part in self.missing if part.name == name), "")


def _by_severity(findings: Sequence[Finding]) -> dict[str, int]:
    return {severity: sum(f.severity == severity for f in findings) for severity in get_args(Severity)}
