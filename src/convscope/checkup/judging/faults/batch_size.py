"""Faults of the batch: too few values per channel to take statistics of."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.observed import NormCall, Observation, Population
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding

_FEWEST_VALUES = 16
_GROUP_NORM = "Wu and He, Group Normalization, arXiv 1803.08494, table 2"


@fault("one-value-per-channel")
def one_value_per_channel(observation: Observation) -> Iterator[Finding]:
    """A batch leaves a training batch norm with one value per channel: the variance of nothing."""
    for norm, population in _training(observation):
        if population.least_values == 1:
            last = population.batch_values > 1
            yield Finding(
                "one-value-per-channel",
                "error",
                norm.address,
                (Evidence("values per channel", 1, "values", "in the smallest batch"),),
                "a batch gives this layer 1 value per channel, which can't be normalised: "
                "x − mean is 0, and PyTorch refuses to train",
                "drop_last=True in the loader" if last else "a batch of several images, or group norm here",
                "torch.nn.functional.batch_norm raises for one value per channel",
            )


@fault("micro-batch")
def micro_batch(observation: Observation) -> Iterator[Finding | Unchecked]:
    """A batch's statistics are worth fewer than 16 independent values.

    Judged by the measured effective number, not by the batch's size: positions of one image count for what
    they are worth, between one value per image and all of them.
    """
    found = []
    for norm, population in _training(observation):
        effective = population.effective_values
        if population.batch_values == 1:
            continue  # one-value-per-channel
        if effective is None:
            yield Unchecked(f"micro-batch at {norm.address}", "one image doesn't show how images differ")
        elif effective < _FEWEST_VALUES:
            found.append((effective, norm, population))
    for effective, norm, population in sorted(found, key=lambda entry: entry[0]):
        yield _micro_batch(effective, norm, population)


def _training(observation: Observation) -> Iterator[tuple[NormCall, Population]]:
    for norm in observation.norms:
        if norm.population is not None and not norm.frozen:
            yield norm, norm.population


def _micro_batch(effective: float, norm: NormCall, population: Population) -> Finding:
    between = population.num_batches >= 4
    return Finding(
        "micro-batch",
        "warning",
        norm.address,
        (
            Evidence(
                "effective values per channel", effective, "values",
                "σ² / Var(batch means), " + ("between batches" if between else "from single images"),
            ),
            Evidence("values per channel", population.batch_values, "values", "images × height × width"),
            Evidence("images per batch", population.batch_images, "images"),
            Evidence("noise of the batch mean", effective**-0.5, "σ", "√(1 / effective values)"),
        ),
        f"a batch of {population.batch_images} images is worth {effective:.1f} independent values per "
        f"channel here (of {population.batch_values}), so that its mean is off by {effective**-0.5:.0%} of a "
        "standard deviation",
        "larger batches; over devices, cs.norm.convert(model, 'sync'); else cs.norm.convert(model, 'renorm') "
        "or 'group', and training on",
        _GROUP_NORM,
    )  # fmt: skip
