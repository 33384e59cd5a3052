"""The probe: reads and replaces values at the tape's addresses while a model really runs."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.core.address import ROOT, Address, parse_address
from convscope.core.errors import ConvscopeError
from convscope.core.modes import require_modes, set_modes
from convscope.core.preserved import preserved
from convscope.probe.reaching import Reaching
from convscope.probe.standing import StandIns
from convscope.tape import Attribution, Frame, Site, decompose, operator_name, require_module
from convscope.tape.attention import attention_in_parts


@dataclass(frozen=True)
class Visit:
    """An operator call that is about to run.

    Attributes:
        site: where it stands: address, operator name, phase.
        forward: for a backward operator, the address of the forward operator that it differentiates.
        args, kwargs: what it was given; real tensors, outside of autograd.
        run: call it to run the operator and have its result.
        operator: the operator itself, to be called with other arguments.
    """

    site: Site
    forward: Address | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    run: Callable[[], Any]
    operator: Callable[..., Any]


Rule = Callable[[Visit], Any]
"""Stands in for an operator: returns the result, for most by way of ``visit.run()``."""

Listener = Callable[[Address, Any], Any]
"""Is told a module call's address and result; what it returns, if not None, replaces the result."""


class Probe(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the runs of one model; made and entered by :func:`probing`.

    Addresses are those of the tape, in forward and backward. They begin anew each time the model itself is
    called, so that a loop over batches has the same addresses in every round.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> shapes = []
        >>> with probing(net) as probe:
        ...     probe.read("1#1:relu.1", lambda visit, result: shapes.append(tuple(result.shape)))
        ...     _ = net(torch.zeros(2, 3, 5, 7))
        >>> shapes
        [(2, 4, 3, 5)]
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.attribution = Attribution(model, self._enter_module, self._leave_module)
        first = {id(module): path for path, module in model.named_modules()}
        # A module with several names goes by its first one.
        self._paths = {
            path or ROOT: first[id(module)] or ROOT
            for path, module in model.named_modules(remove_duplicate=False)
        }
        self._rules: dict[str, list[Rule]] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._reaching: Reaching | None = None
        self._is_paused = False
        self._stand_ins: StandIns | None = None

    def around(self, where: str, rule: Rule) -> None:
        """Let ``rule`` stand in for operators; a later rule wraps an earlier one's result.

        Args:
            where: an operator's address, or an operator's name for all of its calls
                (``"threshold_backward"``).
            rule: see :data:`Rule`.
        """
        self._rules.setdefault(where, []).append(rule)

    def read(self, where: str, reader: Callable[[Visit, Any], object]) -> None:
        """Let ``reader`` see an operator's call and its result, which stays as it is."""

        def rule(visit: Visit) -> Any:
            result = visit.run()
            reader(visit, result)
            return result

        self.around(where, rule)

    def at_module(self, address: str, listener: Listener) -> None:
        """Tell ``listener`` what the module call at ``address`` returns; ``"*"`` means all module calls."""
        self._listeners.setdefault(address if address == "*" else str(self._module(address)), []).append(
            listener
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run a block whose operators aren't the model's, the loading of a batch for one, unwatched."""
        self._is_paused, before = True, self._is_paused
        try:
            yield
        finally:
            self._is_paused = before

    @contextmanager
    def standing_in(self, others: Mapping[torch.Tensor, torch.Tensor]) -> Iterator[None]:
        """Run a block in which other tensors take the place of some parameters, forward and backward.

        Args:
            others: by the parameter that each replaces; of its shape, dtype and device.
        """
        self._stand_ins, before = StandIns(others), self._stand_ins
        try:
            yield
        finally:
            self._stand_ins = before

    def run_until(self, address: str, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the model as far as ``address`` and return the tensor there, with its autograd graph.

        Args:
            address: of a module call (a bare path means its first call) or of a forward operator call.
            *args: positional inputs of the model.
            **kwargs: inputs of the model by name.

        Raises:
            ConvscopeError: there is no such module, or the run doesn't come by that address.
            Exception: whatever the model raises before it has come there.
        """
        return self.run_through([address], *args, **kwargs)[address]

    def run_through(self, addresses: Collection[str], *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Run the model as far as the last of some addresses and return the tensor at each, with its graph.

        Args:
            addresses: each of a module call or of a forward operator call, as for :meth:`run_until`.
            *args: positional inputs of the model.
            **kwargs: inputs of the model by name.

        Raises:
            ConvscopeError: there is no such module, or the run doesn't come by one of the addresses.
            Exception: whatever the model raises before it has come by all of them.
        """
        names = {address: str(self._module(address)) for address in addresses}
        reaching = self._reaching = Reaching(names.values())
        try:
            self.model(*args, **kwargs)
        except _Arrived:
            self.attribution.abandon()
        finally:
            self._reaching = None
        with self.paused():
            reaching.settle(dispatching=False)
        for address, name in names.items():
            if name not in reaching.found:
                raise _not_passed(address)
        return {address: reaching.found[name] for address, name in names.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._stand_ins is not None:
            args, kwargs = self._stand_ins.of((args, kwargs))
        name = None if self._is_paused else operator_name(func)
        if name is None:
            return func(*args, **kwargs)
        parts = decompose(self, func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        site = self.attribution.locate(name)
        if self._has_reached_all(dispatching=True):
            raise _Arrived
        address = str(site.address)
        result = self._ruled(site, address, func, args, kwargs)
        if self._reaching is not None:
            self._reaching.note(address, result)
        return result

    def _ruled(self, site: Site, address: str, func: Any, args: Any, kwargs: Any) -> Any:
        rules = (*self._rules.get(site.op, ()), *self._rules.get(address, ()))
        if not rules:
            return func(*args, **kwargs)
        forward = None if site.forward is None else self.attribution.site(site.forward).address

        def run() -> Any:
            return func(*args, **kwargs)

        for rule in rules:
            run = _applied(rule, Visit(site, forward, args, kwargs, run, func))
        return run()

    def _enter_module(self, frame: Frame, _: Any) -> None:
        if frame.address.path == ROOT and frame.parent is None and not frame.recompute and frame.index > 0:
            self.attribution.restart_at(frame)

    def _leave_module(self, frame: Frame, result: Any) -> Any:
        if frame.recompute or frame.failed:  # what failed has no result
            return None
        address = str(frame.address)
        replaced = None
        for listener in (*self._listeners.get("*", ()), *self._listeners.get(address, ())):
            given = listener(frame.address, result if replaced is None else replaced)
            replaced = given if given is not None else replaced
        if self._reaching is not None:
            self._reaching.note(address, result if replaced is None else replaced)
            if self._has_reached_all(dispatching=False):
                raise _Arrived
        return replaced

    def _has_reached_all(self, *, dispatching: bool) -> bool:
        if self._reaching is None or not self._reaching.has_news:
            return False
        with self.paused():
            return self._reaching.settle(dispatching=dispatching)

    def _module(self, address: str) -> Address:
        parsed = parse_address(address)
        if parsed.path not in self._paths:
            raise unknown_module(parsed.path, set(self._paths))
        return replace(parsed, path=self._paths[parsed.path])


@contextmanager
def probing(model: nn.Module, *, training: bool = False) -> Iterator[Probe]:
    """Run a block with a probe on ``model``; afterwards the model is as it was, also after an exception.

    Args:
        model: any module; see :func:`convscope.core.preserved.preserved` for what is restored.
        training: the mode that all modules are put into; with True, a model which is already in training
            mode keeps its modules' own modes.

    Raises:
        ConvscopeError: ``model`` isn't a network, or an exported program.
    """
    require_module(model)
    require_modes(model)
    with preserved(model):
        set_modes(model, training=training)
        probe = Probe(model)
        with attention_in_parts(), probe.attribution, probe:
            yield probe


def unknown_module(path: str, paths: set[str], operators: Sequence[str] = ()) -> ConvscopeError:
    """Return the error for a module path which the network doesn't have, with the nearest ones.

    Args:
        path: the path.
        paths: those of the network's modules.
        operators: addresses of operators that can be named as well, in order; those that sound like the path
            are told, or else the nearest.
    """
    near = get_close_matches(path, sorted(paths - {ROOT}), n=3, cutoff=0.3)
    wanted = "a module path of this network" + (f", such as {', '.join(near)}" if near else "")
    alike = _alike(path, operators)
    if alike:
        wanted += f", or an operator's address, such as {', '.join(alike)}"
    return ConvscopeError(f"unknown layer {path!r}", wanted, "see `convscope cost` for the layers")


def _alike(path: str, operators: Sequence[str]) -> list[str]:
    """Up to three addresses: of operators that a path's last word names, such as relu2; else the nearest."""
    word = path.rpartition(".")[2].rstrip("0123456789").lower()
    same = [at for at in operators if word and at.rpartition(":")[2].partition(".")[0].rstrip("_") == word]
    return same[:3] or get_close_matches(path, operators, n=3, cutoff=0.3) or list(operators[:1])


def _not_passed(address: str) -> ConvscopeError:
    return ConvscopeError(
        f"address {address!r} isn't passed when the network runs",
        "the address of a module call or operator call of this network",
        "see `convscope cost` for the addresses",
    )


class _Arrived(BaseException):
    """The run has come to the address that it was to reach."""


def _applied(rule: Rule, visit: Visit) -> Callable[[], Any]:
    return lambda: rule(visit)
