"""A mending's findings and numbers before and after, for the terminal and the page alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from convscope.checkup import Checkup, Mending
from convscope.report.wording.formats import counted, with_error, write
from convscope.report.wording.losses import loss_in

_SEVERITIES = ("error", "warning", "advice", "info")
Measured = tuple[float | None, float | None]
"""A number and its standard error."""


@dataclass(frozen=True)
class BeforeAfter:
    """One quantity before and after.

    Attributes:
        name: what it is, with its unit.
        before, after: the number.
        before_error, after_error: its standard error; None where there is none.
        is_count: whether it is a number of findings.
    """

    name: str
    before: float | None
    after: float | None
    before_error: float | None = None
    after_error: float | None = None
    is_count: bool = False

    @property
    def texts(self) -> tuple[str, str, str]:
        """The name and both numbers, written."""
        if self.is_count:
            return self.name, write("exact", self.before), write("exact", self.after)
        errors = (self.before, self.before_error), (self.after, self.after_error)
        before, after = (with_error(*each) for each in errors)
        return self.name, before, after


def mending_heading(found: Mending) -> str:
    """Return how much was mended, and on what."""
    if not found.before.layers and not found.mended:
        return "This network has no batch norm: nothing to mend"
    if not found.mended:
        return "Nothing to mend: the network is as it was" if not found.left else "Nothing was mended"
    changed = found.state is not None and not found.state.unchanged
    where = "on a copy" if changed else "on a copy: your model is as it was"
    return f"{counted(len(found.mended), 'repairs')} ({where})"


def mending_rows(found: Mending) -> list[BeforeAfter]:
    """Return the number of findings of each severity, the gap, and how far the worst layers are off."""
    rows = []
    for severity in _SEVERITIES:
        before, after = (_count(checkup, severity) for checkup in (found.before, found.after))
        if before or after:
            rows.append(BeforeAfter(f"findings: {severity}", before, after, is_count=True))
    for name, read in _NUMBERS.items():
        name = f"{name}, {loss_in(found.before.loss_unit)}"
        (before_value, before_error), (after_value, after_error) = read(found.before), read(found.after)
        if before_value is not None or after_value is not None:
            rows.append(BeforeAfter(name, before_value, after_value, before_error, after_error))
    rows += _of_layers(found, "mean off by σ", "mean")
    rows += _of_layers(found, "variance off by ln", "variance")
    return rows


def _count(checkup: Checkup, severity: str) -> int:
    return sum(finding.severity == severity for finding in checkup.findings)


def _of_layers(found: Mending, name: str, value: str) -> Iterator[BeforeAfter]:
    """A row for the layer that is furthest off before, and one for another that is so after."""
    worst = [_worst(checkup, f"{value}_residual") for checkup in (found.before, found.after)]
    for address in dict.fromkeys(each for each in worst if each is not None):
        before, after = (_of_layer(checkup, address, value) for checkup in (found.before, found.after))
        yield BeforeAfter(f"{name}, worst channel of {address}", before[0], after[0], before[1], after[1])


def _worst(checkup: Checkup, value: str) -> str | None:
    """The address of the layer, of those that train, that is furthest off."""
    found = [
        (getattr(layer, value), layer.address)
        for layer in checkup.layers
        if not layer.frozen and getattr(layer, value) is not None
    ]
    return max(found, key=lambda each: each[0], default=(None, None))[1]


def _of_layer(checkup: Checkup, address: str, value: str) -> Measured:
    """A layer's residual and its standard error; neither if it isn't there any more."""
    for layer in checkup.layers:
        if layer.address == address:
            return getattr(layer, f"{value}_residual"), getattr(layer, f"{value}_error")
    return None, None


_NUMBERS: dict[str, Callable[[Checkup], Measured]] = {
    "loss with running statistics": lambda checkup: (checkup.eval_loss, None),
    "loss with batch statistics": lambda checkup: (checkup.batch_loss, None),
    "gap between them": lambda checkup: (checkup.gap, checkup.gap_error),
}
