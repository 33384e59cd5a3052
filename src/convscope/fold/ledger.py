"""What a fold reports: the ledger, the proof and the folded model.

Values only; how they look in the terminal and on the page is decided in ``convscope.report``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from convscope.core.result import Result

Verdict = Literal["folded", "merged", "partial", "kept"]
"""``folded``: nothing of the batch norm is left to compute; ``merged``: it went away together with a branch
that was merged into its sibling; ``partial``: its scale or its shift went, the other stayed; ``kept``: it
runs as before."""


@dataclass(frozen=True)
class LedgerEntry:
    """What became of one batch norm.

    Attributes:
        address: the module call, such as ``"layer1.0.bn1#1"``, or the operator call of a functional batch
            norm, such as ``"self#1:batch_norm.2"``; the bare path of a module that didn't run.
        verdict: see :data:`Verdict`.
        into: the address that took its scale and shift; empty if it was kept.
        reason: why it was kept, or what else is to be known (``""`` for a plain fold).
        max_error: largest difference at this place, between the batch norm's output before and the layer's
            output after, in a float64 run of the whole network: max|y − y₀| / max|y₀|; None if it was kept.
        magnification: largest |γ| / √(v + ε) over the channels, by which weights grew; None if it was kept.
        remedy: what would make it foldable; "" if it is folded, or nothing would.
    """

    address: str
    verdict: Verdict
    into: str = ""
    reason: str = ""
    max_error: float | None = None
    magnification: float | None = None
    remedy: str = ""


@dataclass(frozen=True)
class Ledger(Result):
    """Every batch norm of a network, in the order in which they run, and where it went.

    Attributes:
        entries: one for each batch norm call; then one for each module that didn't run.

    Example:
        >>> ledger = Ledger((LedgerEntry("bn1#1", "folded", "conv1#1"), LedgerEntry("bn2#1", "kept")))
        >>> ledger.folded, ledger.kept, len(ledger)
        (1, 1, 2)
    """

    entries: tuple[LedgerEntry, ...]

    @property
    def folded(self) -> int:
        """Number of batch norm calls that are gone."""
        return self._count("folded")

    @property
    def merged(self) -> int:
        """Number of batch norm calls that are gone with a merged branch."""
        return self._count("merged")

    @property
    def partial(self) -> int:
        """Number of batch norm calls of which a part is left."""
        return self._count("partial")

    @property
    def kept(self) -> int:
        """Number of batch norms that are as they were."""
        return self._count("kept")

    def __len__(self) -> int:
        return len(self.entries)

    def to_dict(self) -> dict[str, object]:
        """Return the entries and the four counts as plain values."""
        counts = {name: self._count(name) for name in ("folded", "merged", "partial", "kept")}
        return {**super().to_dict(), **counts}

    def _count(self, verdict: str) -> int:
        return sum(entry.verdict == verdict for entry in self.entries)


@dataclass(frozen=True)
class OutputError:
    """How far the folded network's outputs are from the original's, in one dtype.

    Attributes:
        dtype: ``"float64"``, or the model's own dtype (``"float32"``).
        max_error: largest over the trials of max|y − y₀| / max|y₀| over all outputs.
        mean_error: mean|y − y₀| / max|y₀|, averaged over the trials.
    """

    dtype: str
    max_error: float
    mean_error: float


@dataclass(frozen=True)
class Proof:
    """How the equality of the network before and after was shown.

    Attributes:
        passed: whether every trial stayed within the threshold.
        threshold: the largest relative error allowed in float64.
        errors: one for float64, and one for the model's own dtype if it is another.
        trials: the inputs that were tried, shapes and what they are, one text each, such as
            ``"(2, 3, 64, 64) given"``, ``"… random"``, ``"… other size"`` or ``"… other number"``; none if
            nothing was folded.
        method: what was compared, and what couldn't be, in a sentence.
    """

    passed: bool
    threshold: float
    errors: tuple[OutputError, ...]
    trials: tuple[str, ...]
    method: str


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one forward pass.

    Attributes:
        median: median over the repeats.
        low, high: first and third quartile.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed(Result):
    """Test-time speed of two networks on the same inputs, and of a twin without any batch norm.

    Attributes:
        before, after: seconds per forward pass of the whole batch.
        speedup: median over the repeats of before / after, measured in turn (1.2: after is 20 % faster).
        speedup_low, speedup_high: first and third quartile of those ratios.
        repeats: timed passes of each.
        device: where it ran, such as ``"cpu"``.
        num_threads: PyTorch's threads on the CPU.
        input_shape: shapes of the inputs, one text each.
        method: how it was measured, in a sentence.
        twin: seconds of the network that never had a batch norm; None if there is no such twin.
        ratio_to_twin: median over the repeats of after / twin (1.00: folded batch norm costs nothing).
        ratio_to_twin_low, ratio_to_twin_high: first and third quartile of those ratios.
        no_twin: why there is no twin; "" if there is one.
    """

    before: Timing
    after: Timing
    speedup: float
    speedup_low: float
    speedup_high: float
    repeats: int
    device: str
    num_threads: int
    input_shape: tuple[str, ...]
    method: str
    twin: Timing | None = None
    ratio_to_twin: float | None = None
    ratio_to_twin_low: float | None = None
    ratio_to_twin_high: float | None = None
    no_twin: str = ""


@dataclass(frozen=True)
class Folded(Result):
    """A network with its batch norms folded, and what there is to know about it.

    Attributes:
        model: a copy of the network, of the same class, in which folded batch norms are identities.
        ledger: every batch norm and where it went.
        max_error: largest relative difference of the outputs in float64; 0.0 if nothing was folded.
        mean_error: mean relative difference of the outputs in float64.
        proof: how that was shown, with the errors in the model's own dtype.
        speed: measured speed before and after, if it was asked for.
    """

    not_in_json: ClassVar[frozenset[str]] = frozenset({"model"})

    model: nn.Module
    ledger: Ledger
    max_error: float
    mean_error: float
    proof: Proof
    speed: Speed | None = None

    def to_dict(self) -> dict[str, object]:
        """Return everything but the model as plain values; the ledger with its counts."""
        return {**super().to_dict(), "ledger": self.ledger.to_dict()}
