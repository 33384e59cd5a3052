"""One batch norm for several domains: how far apart its calls are, and what its statistics should then be.

A module's running statistics are those of all of its calls together. With momentum w the last of k calls in
a pass weighs w, the one before it (1 − w) w, and so on, over their sum; estimated anew, all weigh alike.
The running mean is the mean of the calls' means by these weights, and the running variance that of their
variances: what lies between the calls' means is in neither. Such a mixture is right if the statistics are
these, whether or not it fits any of the calls.
"""

import math
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from convscope.checkup.judging.residuals import MEAN_TOLERANCE, SIGMAS, VARIANCE_TOLERANCE
from convscope.checkup.observed import NormCall, Observation, Population
from convscope.core.student import student
from convscope.tape import OperatorCall, Tape

PER_DOMAIN = (
    "a batch norm for each domain, with γ and β in common if you like, or both domains in one batch "
    "(torch.cat before the call, split after it); then cs.norm.recalibrate(model, loader)"
)

PER_CALL = (
    "a batch norm for each call (the layers around it may stay shared), for one call reads what another has "
    "made; then train on, or cs.norm.recalibrate(model, loader)"
)


def separated(observation: Observation, path: str) -> str:
    """Return the remedy for a batch norm whose calls differ: by call where they are a chain, else by domain.

    Args:
        observation: with a recording, by which it is told whether one call reads what another has made.
        path: of a module that is called several times.
    """
    tape = observation.tape
    if tape is None:
        return PER_DOMAIN
    calls = [tape.find(norm.operator or "") for norm in observation.norms if norm.path == path]
    known = [call for call in calls if isinstance(call, OperatorCall)]
    chained = any(reads(tape, later, one.output) for one, later in combinations(known, 2))
    return PER_CALL if chained else PER_DOMAIN


def calls_by_path(observation: Observation) -> dict[str, list[NormCall]]:
    """Return the calls of every module that is called more than once, trains, and keeps statistics."""
    calls: dict[str, list[NormCall]] = {}
    for norm in observation.norms:
        if norm.training is not None and not norm.frozen and norm.running_mean is not None:
            calls.setdefault(norm.path, []).append(norm)
    return {path: several for path, several in calls.items() if len(several) > 1}


def mixed_domains(observation: Observation) -> frozenset[str]:
    """Return the paths of the modules whose calls differ beyond tolerance and doubt."""
    several = calls_by_path(observation)
    return frozenset(path for path, calls in several.items() if most_different(calls)[3] > 1)


def most_different(calls: list[NormCall]) -> tuple[float, float, float, float, NormCall, NormCall]:
    """Return the two calls of a module whose inputs differ most, and by how much.

    Returns:
        Largest shift of a channel's mean in σ, its standard error, the largest log ratio of variances, what
        is beyond doubt of both in units of their tolerances, and the calls.
    """
    pairs = [(*_difference(one, other), one, other) for one, other in combinations(calls, 2)]
    return max(pairs, key=lambda pair: pair[3])


def mixtures(calls: list[NormCall]) -> list[NormCall]:
    """Return the first of a module's calls as if its inputs were those of all: all alike, and by momentum."""
    number, momentum = len(calls), calls[0].momentum
    alike = [1 / number] * number
    if momentum is None or not 0 < momentum < 1:
        return [_mixture(calls, alike)]
    late = [(1 - momentum) ** (number - 1 - index) for index in range(number)]
    return [_mixture(calls, alike), _mixture(calls, [weight / sum(late) for weight in late])]


def _mixture(calls: list[NormCall], weights: list[float]) -> NormCall:
    return replace(
        calls[0],
        population=_mixed([call.population for call in calls], weights),
        batch_population=_mixed([call.batch_population for call in calls], weights),
    )


def _mixed(populations: list[Population | None], weights: list[float]) -> Population | None:
    """Statistics by weights; errors as if all calls saw the same images, the most that they may be."""
    known = [each for each in populations if each is not None]
    if len(known) < len(populations):
        return None
    least = min(known, key=lambda each: each.num_images)
    return replace(
        least,
        mean=_weighed([each.mean for each in known], weights),
        variance=_weighed([each.variance for each in known], weights),
        image_variance=_weighed([each.image_variance for each in known], weights),
        square_variance=_weighed([each.square_variance for each in known], weights),
    )


def reads(tape: Tape, call: OperatorCall, value: int) -> bool:
    """Return whether a call reads a value, directly or through others."""
    pending, seen = [*call.inputs], set(call.inputs)
    while pending:
        read = pending.pop()
        if read == value:
            return True
        producer = tape.producer(read)
        before = set() if producer is None else set(producer.inputs) - seen
        pending += before
        seen |= before
    return False


def _weighed(values: list[Tensor], weights: list[float]) -> Tensor:
    return torch.stack([value * weight for value, weight in zip(values, weights, strict=True)]).sum(0)


def _difference(one: NormCall, other: NormCall) -> tuple[float, float, float, float]:
    """Largest shift with its error, largest log ratio of variances, and what is beyond doubt of them."""
    first, second = _in_training(one), _in_training(other)
    if first is None or second is None or min(first.num_images, second.num_images) < 2:
        return 0.0, math.inf, 0.0, 0.0
    doubt = student(SIGMAS, first.num_images + second.num_images - 2)
    variance_C = (first.variance + second.variance) / 2 + one.eps
    shift_C = (first.mean - second.mean).abs() / variance_C.sqrt()
    error_C = (_of_mean(first, first.image_variance) + _of_mean(second, second.image_variance)).sqrt()
    error_C = error_C / variance_C.sqrt()
    spreads = [population.variance + one.eps for population in (first, second)]
    log_C = (spreads[0] / spreads[1]).log().abs()
    log_error_C = sum(
        _of_mean(population, population.square_variance) / spread_C.square()
        for population, spread_C in zip((first, second), spreads, strict=True)
    )
    assert isinstance(log_error_C, torch.Tensor)
    sure_C = torch.maximum(
        (shift_C - doubt * error_C) / MEAN_TOLERANCE,
        (log_C - doubt * log_error_C.sqrt()) / VARIANCE_TOLERANCE,
    )
    worst = int(shift_C.argmax())
    return float(shift_C[worst]), float(error_C[worst]), float(log_C.max()), float(sure_C.max())


def _of_mean(population: Population, between_images_C: torch.Tensor) -> torch.Tensor:
    return between_images_C / population.num_images


def _in_training(norm: NormCall) -> Population | None:
    return norm.batch_population or norm.population
