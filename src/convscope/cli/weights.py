"""What is said of a file of weights that doesn't fit its network: refused, or told, quiet or not."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from convscope.cli.show import note
from convscope.core.errors import ConvscopeError
from convscope.core.units import counted

if TYPE_CHECKING:
    from convscope.networks import WeightsReport

_FOLDED = (
    "they seem to be of the network folded or built without batch norm: give the weights before folding, or "
    "load them into one without batch norm (--norm none for alexnet and zfnet; more in docs/folding.md)"
)
_OTHERS = "build the network with the options that it was trained with"


def check_weights(report: "WeightsReport", reference: str, *, partial: bool) -> None:
    """Say how a file of weights differs from its network; what doesn't fit is told even with ``--quiet``.

    Args:
        report: what became of the file.
        reference: of the network.
        partial: whether the file may lack parameters and running statistics.

    Raises:
        ConvscopeError: it lacks some, and may not.
    """
    if report.unfilled and not partial:
        raise lacking(report, reference)
    if not report.complete or report.stripped or report.place:
        note(report, always=bool(report.unfilled or report.unexpected))


def lacking(report: "WeightsReport", reference: str) -> ConvscopeError:
    """Return the error for a file that lacks parameters or running statistics of its network."""
    from convscope.networks.weights import some

    lacks = counted(len(report.unfilled), "tensor")
    return ConvscopeError(
        f"weights {report.file!r} lack {lacks} of {reference} ({some(report.unfilled)})",
        "all its parameters and running statistics",
        (_FOLDED if report.seems_folded else _OTHERS) + "; --partial-weights leaves them as they were built",
    )


def check_file(reference: str, weights: str, *, partial: bool, **options: Any) -> None:
    """Do what :func:`check_weights` does, before a reading that loads a file of weights by itself.

    Args:
        reference: of the network.
        weights: the file.
        partial: see :func:`check_weights`.
        options: of the network.

    Raises:
        ConvscopeError: the file lacks parameters or running statistics, and may not. Whatever else is wrong
            is left to the reading.
    """
    from convscope.core.preserved import preserved_rng
    from convscope.networks import load

    report = None
    with preserved_rng(), suppress(ConvscopeError):
        report = load(reference, weights=weights, **options).weights
    if report is not None:
        check_weights(report, reference, partial=partial)
