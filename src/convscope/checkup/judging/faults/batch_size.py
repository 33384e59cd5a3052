"""Faults of the batch: too few values per channel to take statistics of."""

import math
from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.shuffling import sorted_by
from convscope.checkup.observed import LoaderFacts, NormCall, Observation, Population
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding
from convscope.core.student import chi_square

FEWEST_VALUES = 16
"""Independent values per channel that a batch should be worth."""
_SIGMAS = 3.0  # by which an effective number must be below that: 1 in 740 by chance, of a normal's one side
_ROUNDING = 1e-6
_GROUP_NORM = "Wu and He, Group Normalization, arXiv 1803.08494, table 2"


@fault("one-value-per-channel")
def one_value_per_channel(observation: Observation) -> Iterator[Finding]:
    """A batch leaves a training batch norm with one value per channel: the variance of nothing.

    Seen in a batch, or to come, by what the loader says of its last one.
    """
    for norm, population in _training(observation):
        if population.least_values > 1 and _is_to_come(observation.loader, population):
            yield _last_of_loader(norm, observation.loader)
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
    """A batch's statistics are worth fewer than 16 independent values, beyond doubt.

    Judged by the measured effective number, not by the batch's size: positions of one image count for what
    they are worth, between one value per image and all of them.

    The variance of batch means is an estimate of B − 1 degrees of freedom, or, from single images, of N − 1,
    whatever the number of channels, which may all say the same. So its upper bound must be below 16 too: the
    estimate times a quantile of χ². Where an image has one value, the number is that of the images, exactly.

    Effect: 16 over the effective number.
    """
    found = []
    for norm, population in _training(observation):
        effective = population.effective_values
        if _explained(observation, norm, population):
            continue
        if population.batch_values == 1:
            continue  # one-value-per-channel
        if effective is None:
            yield Unchecked(f"micro-batch at {norm.address}", _why_unknown(population))
        elif (most := most_effective(population)) < FEWEST_VALUES * (1 - _ROUNDING):
            found.append((effective, most, norm, population))
    for effective, most, norm, population in sorted(found, key=lambda entry: entry[0]):
        yield _micro_batch(effective, most, norm, population)


def most_effective(population: Population) -> float:
    """Return an upper bound on what a batch is worth, in independent values; infinite if nothing is known.

    From single images, as if drawn independently, or from whole batches: whichever is the lower, but not
    below the estimate.
    """
    effective = population.effective_values
    if effective is None:
        return math.inf
    bounds = [math.inf]
    if population.effective_from_images is not None:
        one_each = population.num_values == population.num_images
        doubt = 1.0 if one_each else chi_square(_SIGMAS, population.num_images - 1)
        bounds.append(population.effective_from_images * doubt)
    if population.num_compared >= 4:
        bounds.append(effective * chi_square(_SIGMAS, population.num_compared - 1))
    return max(effective, min(bounds))


def _why_unknown(population: Population) -> str:
    if population.num_images == 1:
        return "one image doesn't show how images differ"
    if not bool(population.variance.isfinite().any()):
        return "its inputs aren't finite"
    if not bool((population.variance > 0).any()):
        return "its inputs are constant"
    return "the means of its inputs are the same in all images"


def is_synchronised(norm: NormCall) -> bool:
    """Return whether a layer pools its statistics over processes."""
    return norm.kind.endswith("SyncBatchNorm")


def _explained(observation: Observation, norm: NormCall, population: Population) -> bool:
    """Whether few effective values have a fault of their own: sorted batches, or unsynchronised processes."""
    pooled = observation.processes.count if observation.processes is not None else 1
    effective = population.effective_values
    if effective is not None and effective * pooled >= FEWEST_VALUES:
        return True
    excess = sorted_by(observation, norm)
    return excess is not None and excess.shuffled_noise**-2 * pooled >= FEWEST_VALUES


def _is_to_come(loader: LoaderFacts | None, population: Population) -> bool:
    """Whether the loader's last batch, of one sample, leaves one value: layers see one value a sample."""
    one_each = population.batch_values == population.batch_images
    return loader is not None and one_each and loader.last_batch == 1


def _last_of_loader(norm: NormCall, loader: LoaderFacts | None) -> Finding:
    assert loader is not None
    return Finding(
        "one-value-per-channel",
        "error",
        norm.address,
        (
            Evidence("values per channel", 1, "values", "in the loader's last batch, which wasn't run"),
            Evidence("samples", loader.num_samples, "samples", "that the loader's sampler yields"),
            Evidence("batch size", loader.batch_size, "samples"),
        ),
        f"{loader.num_samples} samples in batches of {loader.batch_size} leave 1 for the last, which gives "
        "this layer 1 value per channel: PyTorch refuses to train on it",
        "drop_last=True in the loader"
        if loader.batch_size > 1
        else "batches of several images, or group norm",
        "torch.nn.functional.batch_norm raises for one value per channel",
    )


def _training(observation: Observation) -> Iterator[tuple[NormCall, Population]]:
    for norm in observation.norms:
        if norm.population is not None and not norm.frozen:
            yield norm, norm.population


def _micro_batch(effective: float, most: float, norm: NormCall, population: Population) -> Finding:
    between = population.num_compared >= 4
    return Finding(
        "micro-batch",
        "warning",
        norm.address,
        (
            Evidence(
                "effective values per channel", effective, "values",
                "σ² / Var(batch means), " + ("between batches" if between else "from single images"),
            ),
            Evidence("their upper bound", most, "values", "χ² at 3 standard deviations; channels count once"),
            Evidence("values per channel", population.batch_values, "values", "images × height × width"),
            Evidence("images per batch", population.batch_images, "images"),
            Evidence("noise of the batch mean", effective**-0.5, "σ", "√(1 / effective values)"),
        ),
        f"a batch of {population.batch_images} images is worth {effective:.1f} (at most {most:.1f}) "
        f"independent values per channel here (of {population.batch_values}), so that its mean is off by "
        f"{effective**-0.5:.0%} of a standard deviation",
        "larger batches; over devices, cs.norm.convert(model, 'sync'); else cs.norm.convert(model, 'renorm') "
        "or cs.norm.convert(model, 'group', data=loader), and training on",
        _GROUP_NORM,
        effect=FEWEST_VALUES / effective,
    )  # fmt: skip
