"""Random networks, of structures that the fold knows and of others, folded and compared."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cases import state_of
from convscope.fold import fold
from fold.micro.grammar import networks
from fold.micro.oracle import Operators

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def run(net, x):
    with torch.no_grad(), Operators() as seen:
        return net(x.clone()), len(seen.batch_norms())


def size_of_values(net, x):
    """The largest number that any of a network's values holds: outputs may cancel to nothing."""
    sizes = []
    net = copy.deepcopy(net)
    net.see = lambda value: sizes.append(value.abs().max().item())
    net(x.clone())
    return max(sizes, default=1.0)


def check(net, shape, seed):
    kept = state_of(net)
    folded = fold(net, shape)
    assert state_of(net) == kept
    entries = folded.ledger.entries
    generator = torch.Generator().manual_seed(seed)
    for batch in (shape[0], shape[0] + 1):
        x = torch.randn((batch, *shape[1:]), generator=generator, dtype=torch.float64)
        expected, num_before = run(net, x)
        given, num_after = run(folded.model, x)
        for y0, y in zip(expected, given, strict=True):
            size = max(y0.abs().max().item(), 1e-3 * size_of_values(net, x))
            assert (y - y0).abs().max().item() <= 1e-10 * size
        assert num_before == sum("#" in entry.address for entry in entries)
        assert 0 <= num_after - folded.ledger.kept <= folded.ledger.partial
    for entry in entries:
        assert not entry.reason.startswith("taken back"), "the plan itself must be right, not only its proof"
        assert entry.reason or entry.verdict in ("folded", "merged")
    verdicts = {entry.address.partition("#")[0]: entry.verdict for entry in entries}
    assert {verdicts[path] for path in net.private} <= {"folded", "merged"}


@settings(max_examples=25, suppress_health_check=QUIET)
@given(drawn=networks(), seed=st.integers(0, 2**16))
def test_random_networks_keep_their_function(drawn, seed):
    check(*drawn, seed)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=QUIET)
@given(drawn=networks(most_steps=14), seed=st.integers(0, 2**16))
def test_many_random_networks_keep_their_function(drawn, seed):
    check(*drawn, seed)
