"""Faults of the batch: too few values per channel to take statistics of."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.shuffling import sorted_by
from convscope.checkup.observed import LoaderFacts, NormCall, Observation, Population
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding

FEWEST_VALUES = 16
"""Independent values per channel that a batch should be worth."""
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
    """A batch's statistics are worth fewer than 16 independent values.

    Judged by the measured effective number, not by the batch's size: positions of one image count for what
    they are worth, between one value per image and all of them.

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
            yield Unchecked(f"micro-batch at {norm.address}", "one image doesn't show how images differ")
        elif effective < FEWEST_VALUES:
            found.append((effective, norm, population))
    for effective, norm, population in sorted(found, key=lambda entry: entry[0]):
        yield _micro_batch(effective, norm, population)


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
        effect=FEWEST_VALUES / effective,
    )  # fmt: skip
