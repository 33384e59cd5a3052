"""The edits that carry a merge out on a network, and the modules that disappear with it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.fold.edits import Swap
from convscope.fold.merge.candidate import Candidate
from convscope.fold.merge.constants import Run
from convscope.fold.merge.host import name_within
from convscope.fold.merge.modules import MergedAway, MergedBranches, convolution, nested
from convscope.fold.merge.places import Places
from convscope.fold.recorded.flow import path_of
from convscope.tape import ModuleCall


@dataclass(frozen=True)
class _Convolution:
    """Makes the module that holds a merged convolution.

    Attributes:
        candidate: what is merged.
        before, after: paths, within the module, of the submodules that run before and after it.
        host: the path of the host's module within the module, ``""`` if it isn't there.
    """

    candidate: Candidate
    before: tuple[str, ...]
    after: tuple[str, ...]
    host: str

    def __call__(self, old: nn.Module) -> nn.Module:
        like = self._like(old)
        made = convolution(self.candidate.host.geometry, self.candidate.weights, like)
        if not self.candidate.name:
            return made
        before, after = ([(n, old.get_submodule(n)) for n in names] for names in (self.before, self.after))
        return MergedBranches(nested([*before, (self.candidate.name, made), *after]), type(old).__name__)

    def _like(self, old: nn.Module) -> Tensor:
        """A tensor of the dtype, device and memory format that the weights get."""
        host = old.get_submodule(self.host) if self.host else old
        held = getattr(host, "weight", None)
        if isinstance(held, Tensor):
            return held
        candidates = (tensor for tensor in old.parameters() if tensor.is_floating_point())
        return next(candidates, torch.empty((), dtype=self.candidate.host.dtype))


@dataclass(frozen=True)
class _Nothing:
    """Makes the module that stands where a branch was merged away."""

    into: str

    def __call__(self, old: nn.Module) -> nn.Module:
        return MergedAway(type(old).__name__, self.into)


def edits_of(run: Run, candidates: Iterable[Candidate]) -> tuple[Swap, ...]:
    """Return the edits that carry candidates out; calls of one module are carried out once."""
    swaps: dict[str, Swap] = {}
    for candidate in candidates:
        for swap in _swaps(run, candidate):
            swaps.setdefault(swap.path, swap)
    return tuple(swaps.values())


def vanished(places: Places, candidate: Candidate) -> tuple[str, ...]:
    """Return the addresses of the module calls that disappear, without those of the branch with the host."""
    run, chain = places.run, candidate.whole
    kept = () if chain is None else (*chain.before, *chain.after)
    host = places.of(candidate.host.leaf, candidate.host.leaf.source)
    spared = {index for call in kept for index in places.inside(call)}
    if host is not None and host.index in places.inside(candidate.place):
        spared |= _branch_of(places, candidate, host)
    inside = {index for call in candidate.exchanged for index in places.inside(call)}
    calls = (run.tape.modules[index] for index in sorted(inside - spared))
    return tuple(str(call.address) for call in calls if path_of(call) != candidate.path)


def _branch_of(places: Places, candidate: Candidate, host: ModuleCall) -> set[int]:
    """The module calls around the host's convolution in which no other operator of the sum runs."""
    gone = {call.module for call in candidate.gone if call.index != candidate.host.call.index}
    call, spared = host, set(places.inside(host))
    while call.parent is not None and call.index != candidate.place.index:
        call = places.run.tape.modules[call.parent]
        if gone & set(places.inside(call)):
            break
        spared |= set(places.inside(call))
    return spared


def _swaps(run: Run, candidate: Candidate) -> Iterator[Swap]:
    chain, module = candidate.whole, run.module_of(candidate.place)
    calls = ((), ()) if chain is None else (chain.before, chain.after)
    before, after = (tuple(name_within(module, run.module_of(c)) for c in part) for part in calls)
    host = candidate.host.name_within(module)
    yield Swap(path_of(candidate.place), _Convolution(candidate, before, after, host))
    for call in candidate.others:
        yield Swap(path_of(call), _Nothing(candidate.path))
