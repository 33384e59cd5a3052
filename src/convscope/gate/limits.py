"""What a network must keep to."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

from convscope.core.errors import ConvscopeError
from convscope.core.units import parse_bytes, parse_count

Serious = Literal["error", "warning", "advice"]
SEVERITIES: tuple[Serious, ...] = get_args(Serious)
"""From the worst on."""
UNMEASURED_GAP = "unmeasured-gap"
"""What is allowed where a limit on faults is to be answered without the gap of the losses."""


@dataclass(frozen=True)
class Limits:
    """Limits of one network; what is None isn't looked at.

    Numbers may be texts, as on the command line: ``"24GiB"``, ``"5G"``, ``"25.6M"``. They become numbers.

    Attributes:
        memory: bytes of the device that the step has to fit into for sure: largest workspaces, upper end of
            the CUDA context, and a margin; see :mod:`convscope.cost.batch.least`.
        params: most elements of parameters, tied ones once.
        macs: most multiply–accumulates of the forward pass of the batch.
        flops: most FLOPs of the forward pass of the batch: two for each multiply–accumulate.
        fault: no finding of the check-up may be as bad as this: ``"error"``, ``"warning"`` (nor an error) or
            ``"advice"`` (none at all).
        allowed: faults that don't count; ``"unmeasured-gap"``: data whose gap the check-up can't measure.
        unfolded: most batch norms that may be left, in whole or in part, when the network is folded.

    Raises:
        ConvscopeError: a value isn't a limit.

    Example:
        >>> limits = Limits(memory="24GiB", flops="5G", fault="error")
        >>> limits.memory, limits.flops
        (25769803776, 5000000000)
    """

    memory: int | str | None = None
    params: int | str | None = None
    macs: int | str | None = None
    flops: int | str | None = None
    fault: Serious | None = None
    allowed: tuple[str, ...] = ()
    unfolded: int | None = None

    def __post_init__(self) -> None:
        """Turn texts into numbers and check all values."""
        for name in ("memory", "params", "macs", "flops"):
            value = getattr(self, name)
            if isinstance(value, str):
                value = _parsed(name, value)
                object.__setattr__(self, name, value)
            _require(name, value, 1)
        _require("unfolded", self.unfolded, 0)
        if self.fault is not None and self.fault not in SEVERITIES:
            raise ConvscopeError(f"fault={self.fault!r}", f"one of {', '.join(SEVERITIES)}", "choose one")
        if self.allowed and self.fault is None:
            raise ConvscopeError(
                f"allowed fault {self.allowed[0]!r} without a limit on faults",
                "a severity that no fault may have",
                "add fault='error' (--no-fault error)",
            )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return all(getattr(self, field.name) in (None, ()) for field in fields(self))


def _parsed(name: str, text: str) -> int:
    shown = f"{name} (--max-{name})"
    if name == "memory":
        return parse_bytes(text, shown)
    return parse_count(text, shown, {"flops": "FLOPs", "macs": "MACs"}.get(name, ""))


def _require(name: str, value: object, least: int) -> None:
    if value is not None and (type(value) is not int or value < least):
        raise ConvscopeError(f"{name}={value!r}", f"a whole number from {least}, or None", "change it")
