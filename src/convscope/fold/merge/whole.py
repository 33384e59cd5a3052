"""A module whose whole effect is a sum of branches, between submodules of its own."""

import torch

from convscope.fold.merge.candidate import Candidate
from convscope.fold.merge.constants import Run
from convscope.fold.merge.host import host_of, merged_weights, name_within, why_not_in
from convscope.fold.merge.modules import nests
from convscope.fold.merge.places import Chain, Places
from convscope.fold.merge.terms import Node
from convscope.fold.recorded.flow import Stays


def whole_module(run: Run, places: Places, tree: Node, source: int) -> Candidate:
    """Return how the innermost module around a sum becomes one convolution between its other submodules.

    Args:
        run: the recorded run.
        places: its module calls.
        tree: a sum, all of whose leaves are functions of one value.
        source: that value.

    Raises:
        Stays: the module does more than that, or can't be exchanged.
    """
    host = host_of(run, tree.leaves)
    unfit = why_not_in(run, tree.leaves, host)
    if unfit:
        raise Stays(unfit)
    _require_own_memory(run, tree, source)
    chain = places.chain(tree, source)
    module = run.module_of(chain.call)
    name = host.name_within(module) or "conv"
    before, after = (
        [name_within(module, run.module_of(call)) for call in calls] for calls in (chain.before, chain.after)
    )
    if not nests([*before, name, *after]):
        raise Stays(f"{chain.call.address} runs a submodule twice, or one that isn't its own")
    kept = {index for call in (*chain.before, *chain.after) for index in places.inside(call)}
    places.require_no_hooks(call for call in places.module_calls_in(chain.call) if call.index not in kept)
    _require_nothing_idle(run, chain, tree)
    ones = torch.ones(host.geometry.out_channels, dtype=torch.float64)
    weights = merged_weights(run, [(tree, ones)], host)
    return Candidate(tree, tree.calls, host, weights, chain.call, name, chain)


def _require_own_memory(run: Run, tree: Node, source: int) -> None:
    memory = run.tape.values[source].storage
    for node in tree.walk():
        if node.children and node.call is not None and run.tape.values[node.value].storage == memory:
            raise Stays(f"{node.call.address} writes the sum over the value that the branches read")


def _require_nothing_idle(run: Run, chain: Chain, tree: Node) -> None:
    """Check that a module has no parameters but those of its branches and of the submodules that stay."""
    used = {id(p) for call in (*chain.before, *chain.after) for p in run.module_of(call).parameters()}
    used |= {
        id(slot.tensor_in(run.model))
        for call in tree.calls
        for value in call.inputs
        for slot in run.slots_of(value)
    }
    for name, parameter in run.module_of(chain.call).named_parameters():
        if id(parameter) not in used:
            raise Stays(f"{chain.call.address.path}.{name} isn't read, and would be lost with its module")
