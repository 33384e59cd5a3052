"""Running a network beside itself, with group norm in the place of some batch norms, to fit those.

Every batch runs twice. The first run is the original network's and leaves the layers' outputs, the targets.
The second meets each layer with inputs that come from converted ones, adds its sums, refits γ and β there and
then, and goes on with the group norm's output. Sums are kept by batch and call, so that a later sweep puts
new ones in the place of old ones.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.core.address import parse_address
from convscope.core.errors import ConvscopeError
from convscope.norm.group_fit.sums import PairSums, fitted, merged_pairs, pair_sums
from convscope.probe import Probe, Visit, probing
from convscope.probe.batches import Batch

# Between sweeps, relative to the largest γ or β of a layer.
_SETTLED = 1e-3

Key = tuple[int, str]
"""A batch's number and a module call's address."""


@dataclass(eq=False)
class Layer:
    """A group norm that is being fitted.

    Attributes:
        num_groups: groups.
        eps: ε.
        sums: of every batch and call so far, the newest.
        weight, bias: γ and β by these sums.
    """

    num_groups: int
    eps: float
    sums: dict[Key, PairSums] = field(default_factory=dict)
    weight: Tensor = field(default_factory=lambda: torch.zeros(0))
    bias: Tensor = field(default_factory=lambda: torch.zeros(0))

    def refit(self) -> None:
        """Fit γ and β to the sums, at least one."""
        self.weight, self.bias = fitted(merged_pairs(list(self.sums.values())))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the group norm's output, in the dtype of ``x``."""
        weight, bias = (parameter.to(x.device, x.dtype) for parameter in (self.weight, self.bias))
        return F.group_norm(x, self.num_groups, weight, bias, self.eps)


class Sweeps:
    """Runs of one model over batches that are held; made and ended by :func:`sweeping`.

    Args:
        model: in evaluation mode.
        probe: on it.
        batches: what it is run on.
        progress: called with the forward passes done and the most that there will be.

    Attributes:
        layers: what is fitted, by path.
        positions: after the survey, positions of each layer's smallest map, by path in order of execution.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Probe,
        batches: tuple[Batch, ...],
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self.layers: dict[str, Layer] = {}
        self.positions: dict[str, int] = {}
        self._model, self._probe, self._batches, self._progress = model, probe, batches, progress
        self._number = self._done = self._most = 0
        self._targets: dict[str, Tensor] = {}
        self._rule: Callable[[Visit], Any] = lambda visit: visit.run()
        probe.around("batch_norm", lambda visit: self._rule(visit))

    def survey(self, paths: Collection[str], runs: int) -> None:
        """Find which layers run, in which order and at which sizes: one batch of every shape is run.

        Args:
            paths: of the layers.
            runs: how often each batch will be run after this, at most.
        """
        shapes = {batch.shapes: number for number, batch in reversed([*enumerate(self._batches)])}

        def look(visit: Visit) -> Any:
            path, x = visit.site.address.path, visit.args[0]
            if path in paths:
                positions = x[0, 0].numel()
                self.positions[path] = min(positions, self.positions.get(path, positions))
            return visit.run()

        self._most = len(shapes) + runs * len(self._batches)
        for number in sorted(shapes.values()):
            self._run(number, look)

    def fit(self, sweeps: int) -> None:
        """Fit all layers; see the module.

        Args:
            sweeps: over the data at most; 0 for inputs from the original network.

        Raises:
            ConvscopeError: the network fails, a layer's values aren't finite, or its shapes follow from
                values.
        """
        if not sweeps:
            for number in range(len(self._batches)):
                self._run(number, self._in_parallel)
            for layer in self.layers.values():
                layer.refit()
        for _ in range(sweeps):
            before = {path: (layer.weight, layer.bias) for path, layer in self.layers.items()}
            for number in range(len(self._batches)):
                self._run(number, self._keep_target)
                self._run(number, self._in_sequence)
                if self._targets:
                    raise _astray(parse_address(next(iter(self._targets))).path)
            if all(len(layer.sums) == 1 for layer in self.layers.values()) or self._settled(before):
                return

    def _run(self, number: int, rule: Callable[[Visit], Any]) -> None:
        self._number, self._rule = number, rule
        batch = self._batches[number]
        try:
            batch.run(self._model)
        except ConvscopeError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConvscopeError(
                f"the network fails in {self._probe.attribution.failed_in} on inputs of shape {batch.shapes} "
                f"({reason})",
                "inputs that the network takes",
                "check the data's shape and dtype",
            ) from error
        self._done += 1
        if self._progress is not None:
            with self._probe.paused():
                self._progress(self._done, self._most)

    def _in_parallel(self, visit: Visit) -> Any:
        result = visit.run()
        if visit.site.address.path in self.layers:
            self._add(visit, result[0])
        return result

    def _keep_target(self, visit: Visit) -> Any:
        result = visit.run()
        if visit.site.address.path in self.layers:
            # A copy: an activation that works in place would overwrite the output.
            self._targets[str(visit.site.address)] = result[0].clone()
        return result

    def _in_sequence(self, visit: Visit) -> Any:
        result, path = visit.run(), visit.site.address.path
        if path not in self.layers:
            return result
        target = self._targets.pop(str(visit.site.address), None)
        if target is None or target.shape != visit.args[0].shape:
            raise _astray(path)
        self._add(visit, target)
        layer = self.layers[path]
        layer.refit()
        return (layer(visit.args[0]), *result[1:])

    def _add(self, visit: Visit, target: Tensor) -> None:
        path, x = visit.site.address.path, visit.args[0]
        sums = pair_sums(x, target, self.layers[path].num_groups, self.layers[path].eps)
        if not all(bool(each.isfinite().all()) for each in sums):
            raise ConvscopeError(
                f"{path} with NaN or infinite values in batch {self._number}",
                "finite activations",
                "look for overflow before this layer, half precision for one",
            )
        self.layers[path].sums[self._number, str(visit.site.address)] = sums

    def _settled(self, before: dict[str, tuple[Tensor, Tensor]]) -> bool:
        """Whether γ and β of all layers are, but for little, what they were before a sweep."""
        return all(
            len(old) == len(new) and bool((new - old).abs().max() <= _SETTLED * new.abs().max())
            for path, layer in self.layers.items()
            for old, new in zip(before[path], (layer.weight, layer.bias), strict=True)
        )


@contextmanager
def sweeping(
    model: nn.Module, batches: tuple[Batch, ...], progress: Callable[[int, int], object] | None = None
) -> Iterator[Sweeps]:
    """Run a block with :class:`Sweeps` of a model, in evaluation mode; afterwards the model is as it was."""
    with probing(model) as probe:
        yield Sweeps(model, probe, batches, progress)


def _astray(path: str) -> ConvscopeError:
    return ConvscopeError(
        f"{path}, whose calls or shapes follow from the values in the network",
        "a network whose layers meet the same shapes with group norm as with batch norm",
        "fit with sweeps=0, or leave this layer out",
    )
