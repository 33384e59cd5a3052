"""A run that diverges: noticed, stopped, and traced to the first value that isn't finite.

On CPU each loss is looked at before its backward pass, so that the weights are still finite when the run
stops. An accelerator isn't waited for at every step: there the losses are read every ``log_every`` steps.
Weights are looked at before they are saved. Where the weights have changed since the cause, the run goes
back to its last checkpoint and repeats the steps up to it. Then that very step is run once more, and every
operator looked at (:mod:`convscope.train.running.examining`).

Limits: an accelerator that doesn't compute the same twice may not diverge again in the repetition; the
report then says the step alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convscope.core.errors import ConvscopeError
from convscope.train.feeding.batches import Batch, load_batches
from convscope.train.feeding.order import share
from convscope.train.run import Divergence
from convscope.train.running.engine import summed
from convscope.train.running.examining import (
    STATISTICS,
    Cause,
    What,
    examined,
    first_bad,
    largest_finite,
    learnt_by,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

    from convscope.train.running.loop import Training

_KEPT = ("weight", "running statistics", "buffer")


class Diverging(Exception):  # noqa: N818  (no error: a message from the step to the loop)
    """A loss isn't finite, in this process or another one.

    Args:
        loss: this process's.
        mean: of all processes.
    """

    def __init__(self, loss: Tensor, mean: float) -> None:
        super().__init__(loss, mean)
        self.loss = loss
        self.mean = mean

    def located(self, training: "Training", batch: Batch) -> Divergence:
        """Return where the run diverges: in the coming step, with this batch."""
        position = training.position
        rate = training.learner.optimizer.param_groups[0]["lr"]
        return located(training, Divergence(position.step + 1, position.epoch + 1, self.mean, rate), batch)


def check_loss(loss: Tensor, prepared: nn.Module) -> None:
    """Stop a step whose loss isn't finite before its backward pass, on CPU; elsewhere do nothing.

    Every process of a run calls it, and all of them stop if one has to.

    Args:
        loss: one number.
        prepared: the network, in its wrapper if several processes train it.

    Raises:
        Diverging: the loss isn't finite.
    """
    if loss.device.type != "cpu":
        return
    mean = loss.detach()
    if isinstance(prepared, DistributedDataParallel):
        mean = mean.clone()
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    if not math.isfinite(mean):
        raise Diverging(loss, float(mean))


def is_sound(model: nn.Module, accelerator: "Accelerator") -> bool:
    """Return whether all trained parameters and running statistics are finite, in every process."""
    bad = sum((~tensor.detach().isfinite()).any() for _, tensor in learnt_by(model))
    return float(summed(torch.as_tensor(bad).double(), accelerator)) == 0


def unsound(training: "Training", loss: float | None) -> Divergence | None:
    """Return where weights or running statistics stopped being finite, or None: asked before they are saved.

    Args:
        training: the run.
        loss: of the last step.
    """
    if is_sound(training.model, training.accelerator):
        return None
    position, rate = training.position, training.learner.optimizer.param_groups[0]["lr"]
    known = math.nan if loss is None else loss
    return located(training, Divergence(position.step, position.epoch + 1, known, rate))


def located(training: "Training", diverged: Divergence, batch: Batch | None = None) -> Divergence:
    """Return a divergence together with the first value that wasn't finite, if it is found.

    Afterwards the network is as it was before the step that computed that value, or before the diverging
    one, but for the running statistics that the diverging forward pass moved.

    Args:
        training: the run.
        diverged: what is known.
        batch: the diverging step's, if the network is still as it was before that step.
    """
    search = _Search(training)
    found = search.cause(batch) if batch is not None else None
    step: int | None = diverged.step
    if batch is None or (found is not None and found.cause.what in _KEPT):
        try:
            earlier = search.earlier(diverged.step)
        except (ConvscopeError, OSError):  # the checkpoint is gone: what is known is said
            earlier = None
        if earlier is not None:
            step, found = earlier
            # Weights are looked at after every repeated step: what stands now stood at the beginning.
            step = 0 if found is not None and _stood(found, training) else step
        elif found is not None:
            step = None
    if found is None:
        found, step = search.standing(), 0
    return diverged if found is None else _told(diverged, found, step)


@dataclass(frozen=True)
class _Found:
    """A cause, and the number of the training image that it is in."""

    cause: Cause
    image: int | None = None


class _Search:
    """Looks for the cause of a divergence, in all processes together."""

    def __init__(self, training: "Training") -> None:
        self.training = training
        self.accelerator = training.accelerator

    def cause(self, batch: Batch) -> _Found | None:
        """What isn't finite first in the coming step, with its batch."""
        training, position = self.training, self.training.position
        place = replace(position)
        whole = training.order.batches(position.epoch)[position.batch]
        own = share(whole, self.accelerator.process_index, self.accelerator.num_processes)

        def step() -> Tensor:
            try:
                return training.take(len(whole), batch)[0]
            except Diverging as diverging:
                return diverging.loss

        found = examined(training.model, batch[0], step)
        training.position = place
        is_image = found is not None and found.what == "input"
        image = own[found.index[0]] if found is not None and is_image else None
        return self._agreed(None if found is None else _Found(found, image))

    def earlier(self, last: int) -> tuple[int, _Found | None] | None:
        """From the last checkpoint on: the step that made a weight infinite, or ``last``, and its cause."""
        if not self.training.folder.checkpoint.exists():
            return None
        suspect = self._repeated(last - 1)
        if suspect is None and self.training.position.step != last - 1:
            return None  # the checkpoint is of a later step
        if suspect is not None:
            self._repeated(suspect - 1)
        for _, batch in self._batches():
            return suspect or last, self.cause(batch)
        return None

    def standing(self) -> _Found | None:
        """A weight or running statistic that isn't finite as the network stands."""
        for name, tensor in learnt_by(self.training.model):
            if not bool(tensor.detach().isfinite().all()):
                what: What = "running statistics" if name.rpartition(".")[2] in STATISTICS else "weight"
                value, index = first_bad(tensor)
                return _Found(Cause(0, name, what, value, index, largest_finite([tensor])))
        return None

    def _repeated(self, until: int) -> int | None:
        """Go back to the checkpoint and on to a step; the first step after which a weight isn't finite."""
        training = self.training
        training.load()
        if not is_sound(training.model, self.accelerator):
            return None
        for whole, batch in self._batches():
            if training.position.step >= until:
                break
            try:
                training.take(len(whole), batch)
            except Diverging:
                break
            if not is_sound(training.model, self.accelerator):
                return training.position.step
        return None

    def _batches(self) -> Iterator[tuple[list[int], Batch]]:
        training, position = self.training, self.training.position
        rank, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        wholes = training.order.batches(position.epoch)[position.batch :]
        shares = [share(whole, rank, num_processes) for whole in wholes]
        images = training.images("train", position.epoch)
        return zip(wholes, load_batches(images, shares, 0, self.accelerator.device))

    def _agreed(self, own: _Found | None) -> _Found | None:
        """The earliest cause of all processes."""
        if self.accelerator.num_processes == 1:
            return own
        from accelerate.utils import gather_object

        found = [each for each in gather_object([own]) if each is not None]
        return min(found, key=lambda each: each.cause.order, default=None)


def _stood(found: _Found, training: "Training") -> bool:
    """Whether a weight or running statistic wasn't finite before the step in which it was met."""
    tensor = dict(learnt_by(training.model)).get(found.cause.address)
    return tensor is not None and not bool(tensor.detach().isfinite().all())


def _told(diverged: Divergence, found: _Found, step: int | None) -> Divergence:
    cause = found.cause
    return replace(
        diverged,
        address=cause.address,
        what=cause.what,
        value=cause.value,
        index=cause.index,
        largest_finite=cause.largest_finite,
        image=found.image,
        appeared_at=step,
    )
