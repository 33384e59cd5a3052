"""Training and evaluation mode of a network and of its batch norms, from step to step."""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from convscope.checkup.observed.run import EvaluationSteps
from convscope.checkup.watching.layers import copied_statistics, uses_batch
from convscope.norm.freezing.frozen import FrozenNorm
from convscope.probe.passes import ForwardPass, LayerCall

_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class _Signs:
    """What changes with a layer that is unfrozen on purpose.

    Attributes:
        setting: the layer's class, and whether γ and β require gradients.
        optimizer: whose step it was; 0 if it isn't known.
        trained: whether that holds γ and β, at a learning rate above 0, and whether they have gradients.
    """

    setting: tuple[object, ...]
    optimizer: int = 0
    trained: tuple[bool, ...] = ()


@dataclass(eq=False)
class Freeze:
    """A batch norm that was in evaluation mode while the network trained.

    Attributes:
        statistics: copies of the running ones, from when it began.
        steps: how many such steps.
        undone_at: the step, from 1, in which it first trained again by itself.
        returns: how often it has been put to evaluation mode again since.
    """

    statistics: tuple[Tensor, Tensor] | None
    steps: int = 0
    undone_at: int | None = None
    returns: int = 0
    _is_undone: bool = False
    _setting: tuple[object, ...] = ()
    _trained: dict[int, tuple[bool, ...]] = field(default_factory=dict)  # by optimizer

    def note(self, signs: _Signs) -> None:
        """Take down how things are while it lasts."""
        self._setting = signs.setting
        if signs.optimizer:
            self._trained[signs.optimizer] = signs.trained

    def agrees(self, signs: _Signs) -> bool:
        """Return whether nothing has changed that goes with unfreezing on purpose, as far as is known.

        An optimizer that is new to the loop agrees if it trains no more than those before it.
        """
        if self._setting and self._setting != signs.setting:
            return False
        if not signs.optimizer or not self._trained:
            return True
        if signs.optimizer in self._trained:
            return self._trained[signs.optimizer] == signs.trained
        before = [any(flags) for flags in zip(*self._trained.values(), strict=True)]
        return all(known or not now for known, now in zip(before, signs.trained, strict=True))

    def holds(self, signs: _Signs) -> None:
        """A step has left the layer in evaluation mode."""
        self.returns += self._is_undone
        self._is_undone = False
        self.note(signs)
        self.steps += 1

    def is_undone(self, step: int) -> None:
        """A step has found it in training mode, though nothing else has changed."""
        self.undone_at = self.undone_at or step
        self._is_undone = True

    def shift(self, norm: _BatchNorm) -> float:
        """Return how far the running mean has moved since, in standard deviations; largest of channels."""
        if self.statistics is None or norm.running_mean is None:
            return 0.0
        mean_C, variance_C = self.statistics
        scale_C = (variance_C.double() + norm.eps).sqrt()
        return float(((norm.running_mean.double() - mean_C.double()) / scale_C).abs().max())


class Modes:
    """Follows modes over a run.

    Args:
        model: the network. Batch norms that are in evaluation mode while it is in training mode are taken
            for frozen from the start.

    Attributes:
        freezes: by path.
    """

    def __init__(self, model: nn.Module, norms: dict[str, _BatchNorm]) -> None:
        self._model = model
        asleep = {path: norm for path, norm in norms.items() if model.training and not uses_batch(norm)}
        self.freezes = {path: Freeze(copied_statistics(norm)) for path, norm in asleep.items()}
        for path, norm in asleep.items():
            self.freezes[path].note(_signs(norm, None))
        self._in_step: dict[str, tuple[_BatchNorm, bool]] = {}
        self._modes: set[bool] = set()  # of the network, in the passes that this step trains on
        self._by_batch: set[int] = set()  # passes in which a batch norm used batch statistics
        self._learnt: set[int] = set()  # parameters that the current step has trained in evaluation mode
        self._evaluation = EvaluationSteps()
        self._evaluates = self._is_counted = False

    @property
    def is_training(self) -> bool:
        """Whether the current step has trained anything so far."""
        return bool(self._modes or self._in_step)

    def layer(self, call: LayerCall, norm: _BatchNorm) -> None:
        """A batch norm runs in a forward pass with gradients."""
        if uses_batch(norm):
            self._by_batch.add(call.within.number)
        if call.within.training:
            seen = self._in_step.get(call.path)
            self._in_step[call.path] = norm, uses_batch(norm) or (seen is not None and seen[1])

    def reached(self, run: ForwardPass) -> None:
        """A forward pass is one that trains."""
        self._modes.add(run.training or run.number in self._by_batch)

    def see_training(self, optimizer: Optimizer, norms: dict[str, _BatchNorm], goes_on: bool = False) -> None:
        """Look at what a step in evaluation mode has trained: what has a gradient now.

        Args:
            optimizer: which has stepped.
            norms: the network's batch norms by path; those that :func:`convscope.norm.freeze` has frozen are
                meant not to move.
            goes_on: whether this is another optimizer's part of the last step.
        """
        if not goes_on:
            self._learnt.clear()
            self._evaluates, self._is_counted = self._modes == {False}, False
        live = [norm for norm in norms.values() if not isinstance(norm, FrozenNorm)]
        if not self._evaluates or not live:
            return
        held = (parameter for group in optimizer.param_groups for parameter in group["params"])
        self._learnt.update(id(parameter) for parameter in held if parameter.grad is not None)
        affine = sum(id(norm.weight) in self._learnt or id(norm.bias) in self._learnt for norm in live)
        parameters = list(self._model.parameters())
        number = sum(parameter.numel() for parameter in parameters)
        learnt = sum(parameter.numel() for parameter in parameters if id(parameter) in self._learnt)
        share = learnt / max(number, 1)
        if affine or share > _NEARLY_ALL:
            dropouts = sum(isinstance(m, _DropoutNd) and m.p > 0 for m in self._model.modules())
            count = self._evaluation.count + (not self._is_counted)
            self._evaluation = EvaluationSteps(count, len(live), affine, share, dropouts)
            self._is_counted = True

    def step_ends(self, steps: int, optimizer: Optimizer) -> None:
        """A step is over, number ``steps`` from 1."""
        for path, (norm, by_batch) in self._in_step.items():
            freeze, signs = self.freezes.get(path), _signs(norm, optimizer)
            agrees = freeze is not None and freeze.agrees(signs)
            if not by_batch:
                if freeze is None or not agrees:
                    freeze = self.freezes[path] = Freeze(copied_statistics(norm))
                freeze.holds(signs)
            elif freeze is not None and agrees:
                freeze.is_undone(steps)
            elif freeze is not None and freeze.undone_at is None:
                del self.freezes[path]  # it was unfrozen on purpose
        self._in_step.clear()
        self._modes.clear()

    def forget_passes(self) -> None:
        """Passes are over that no backward pass will come to."""
        self._by_batch.clear()

    def evaluation_steps(self) -> EvaluationSteps:
        """Return the steps that trained the network in evaluation mode."""
        return self._evaluation


def _signs(norm: _BatchNorm, optimizer: Optimizer | None) -> _Signs:
    """The signs now; without an optimizer, before any step, some aren't known yet."""
    affine = [tensor for tensor in (norm.weight, norm.bias) if tensor is not None]
    setting = type(norm), *(tensor.requires_grad for tensor in affine)
    if optimizer is None:
        return _Signs(setting)
    held = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get("lr") != 0
        for parameter in group["params"]
    }
    trained = *(id(tensor) in held for tensor in affine), *(tensor.grad is not None for tensor in affine)
    return _Signs(setting, id(optimizer), trained)
