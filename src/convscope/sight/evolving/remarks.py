"""What should be known before an evolution is believed."""

from collections.abc import Iterator, Mapping, Sequence

from convscope.core.finding import Evidence, Finding
from convscope.sight.evolving.moment import Moment
from convscope.sight.evolving.result import EvolvingLayer

SOURCE = "Zeiler and Fergus 2014 (arXiv 1311.2901), figure 4 and section 4.1"


def remarks(
    layers: Sequence[EvolvingLayer],
    moments: Sequence[Moment],
    missing: Mapping[int, str],
    others: Sequence[int],
) -> tuple[Finding, ...]:
    """Return the findings about an evolution.

    Args:
        layers: their stories.
        moments: in order.
        missing: epochs of which there is nothing, each with the reason, where it is known.
        others: epochs whose weights weren't the kept ones when the training came by again.
    """
    return (
        *_gaps(missing),
        *_other_training(others),
        *(f for layer in layers for f in _died(layer, moments)),
    )


def _gaps(missing: Mapping[int, str]) -> Iterator[Finding]:
    for epoch, reason in missing.items():
        why = f": {reason}" if reason else ", or the training didn't come by"
        yield Finding(
            "epoch-missing", "warning" if reason else "info", "self", (Evidence("epoch", epoch, "1"),),
            f"epoch {epoch} wasn't looked at{why}", "", SOURCE,
        )  # fmt: skip


def _other_training(others: Sequence[int]) -> Iterator[Finding]:
    if others:
        yield Finding(
            "another-training", "warning", "self", (Evidence("epochs", len(others), "epochs"),),
            f"the training came by epochs {', '.join(map(str, others))} with other weights than those kept: "
            "the folder holds an earlier training, or one that isn't the same when it is repeated",
            "take a new folder for a new training", SOURCE,
        )  # fmt: skip


def _died(layer: EvolvingLayer, moments: Sequence[Moment]) -> Iterator[Finding]:
    first, last = layer.num_dead[0], layer.num_dead[-1]
    if last > first:
        yield Finding(
            "units-died", "warning", layer.name,
            (
                Evidence("dead units at the last epoch", last, "units", f"of {layer.num_units}"),
                Evidence("at the first epoch", first, "units"),
            ),
            f"{last - first} more of {layer.num_units} units are dead at epoch {moments[-1].epoch} than at "
            f"epoch {moments[0].epoch}",
            "lower the learning rate, or look at weight decay and the initial biases", SOURCE,
        )  # fmt: skip
