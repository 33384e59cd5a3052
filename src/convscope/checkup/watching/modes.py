"""Training and evaluation mode of a network and of its batch norms, from step to step."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from convscope.checkup.observed.run import EvaluationSteps
from convscope.checkup.watching.layers import copied_statistics, uses_batch
from convscope.probe.passes import ForwardPass, LayerCall

_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class _Signs:
    """What changes with a layer that is unfrozen on purpose.

    Attributes:
        setting: the layer's class, and whether γ and β require gradients.
        optimizer: whose step it was; 0 if it isn't known.
        trained: whether that holds γ and β, and whether they have gradients.
    """

    setting: tuple[object, ...]
    optimizer: int = 0
    trained: tuple[bool, ...] = ()

    def agree(self, others: "_Signs") -> bool:
        """Return whether nothing has changed, as far as both know."""
        comparable = self.optimizer == others.optimizer != 0
        return self.setting == others.setting and (not comparable or self.trained == others.trained)


@dataclass(eq=False)
class Freeze:
    """A batch norm that was in evaluation mode while the network trained.

    Attributes:
        steps: how many such steps.
        undone_at: the step, from 1, in which it trained again by itself.
    """

    signs: _Signs
    statistics: tuple[Tensor, Tensor] | None
    steps: int = 0
    undone_at: int | None = None

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
        self.freezes = {path: _freeze(norm) for path, norm in asleep.items()}
        self._in_step: dict[str, tuple[_BatchNorm, bool]] = {}
        self._modes: set[bool] = set()  # of the network, in the passes that this step trains on
        self._by_batch: set[int] = set()  # passes in which a batch norm used batch statistics
        self._evaluation: list[EvaluationSteps] = []

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

    def see_training(self, optimizer: Optimizer, norms: dict[str, _BatchNorm]) -> None:
        """Look at what a step in evaluation mode has trained: what has a gradient now."""
        if self._modes != {False} or not norms:
            return
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}

        def learns(parameter: Tensor | None) -> bool:
            return parameter is not None and parameter.grad is not None and id(parameter) in held

        affine = sum(learns(norm.weight) or learns(norm.bias) for norm in norms.values())
        parameters = list(self._model.parameters())
        number = sum(parameter.numel() for parameter in parameters)
        share = sum(parameter.numel() for parameter in parameters if learns(parameter)) / max(number, 1)
        if affine or share > _NEARLY_ALL:
            dropouts = sum(isinstance(m, _DropoutNd) and m.p > 0 for m in self._model.modules())
            count = self._evaluation[-1].count + 1 if self._evaluation else 1
            self._evaluation = [EvaluationSteps(count, len(norms), affine, share, dropouts)]

    def step_ends(self, steps: int, optimizer: Optimizer) -> None:
        """A step is over, number ``steps`` from 1."""
        for path, (norm, by_batch) in self._in_step.items():
            freeze = self.freezes.get(path)
            if by_batch and (freeze is None or freeze.undone_at is not None):
                continue
            signs = _signs(norm, optimizer)
            if not by_batch and (freeze is None or freeze.undone_at is None):
                if freeze is None or not freeze.signs.agree(signs):
                    freeze = self.freezes[path] = _freeze(norm, optimizer)
                freeze.signs = signs
                freeze.steps += 1
            elif by_batch and freeze is not None:
                if freeze.signs.agree(signs):
                    freeze.undone_at = steps
                else:
                    del self.freezes[path]  # it was unfrozen on purpose
        self._in_step.clear()
        self._modes.clear()

    def forget_passes(self) -> None:
        """Passes are over that no backward pass will come to."""
        self._by_batch.clear()

    def evaluation_steps(self) -> EvaluationSteps:
        """Return the steps that trained the network in evaluation mode."""
        return self._evaluation[-1] if self._evaluation else EvaluationSteps()


def _freeze(norm: _BatchNorm, optimizer: Optimizer | None = None) -> Freeze:
    return Freeze(_signs(norm, optimizer), copied_statistics(norm))


def _signs(norm: _BatchNorm, optimizer: Optimizer | None) -> _Signs:
    """The signs now; without an optimizer, before any step, some aren't known yet."""
    affine = [tensor for tensor in (norm.weight, norm.bias) if tensor is not None]
    setting = type(norm), *(tensor.requires_grad for tensor in affine)
    if optimizer is None:
        return _Signs(setting)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = *(id(tensor) in held for tensor in affine), *(tensor.grad is not None for tensor in affine)
    return _Signs(setting, id(optimizer), trained)
