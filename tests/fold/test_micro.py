"""Every micro case: the verdict of each batch norm, the numbers in float64, and the user's model left alone.

The names of the first five groups are those of the table of cases by which other tools were compared.
"""

import copy
import io
import pickle

import pytest
import torch

from cases import state_of
from convscope.fold import fold
from fold.micro import after, before, form, limits, share, through, writes
from fold.micro.oracle import (
    Operators,
    first_dtype,
    operators_of,
    outputs_of,
    relative_error,
    trained,
)
from fold.micro.table import CASES, TABLE, TRAPS, done, every_case, every_row

# float64 separates a right fold from a wrong one by nine orders of magnitude; half precision rounds weights.
LARGEST_ERROR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def path_of(entry):
    return entry.address.partition("#")[0]


def test_all_rows_of_the_table_are_here():
    assert [len(group.CASES) for group in (after, before, through, share, form)] == [25, 23, 18, 7, 21]
    assert len(CASES) == len(TABLE) + len(TRAPS), "a name twice"


@every_case
def test_verdicts(name):
    case, result = CASES[name], done(name)
    entries = result.folded.ledger.entries
    assert {path_of(entry) for entry in entries} == case.paths(result.net)
    wrong = {e.address: (e.verdict, e.reason) for e in entries if e.verdict not in case.allowed(path_of(e))}
    assert not wrong
    for verdict, least in case.counts.items():
        assert getattr(result.folded.ledger, verdict) >= least
    for entry in entries:
        assert not entry.reason.startswith("taken back"), "the plan itself must be right, not only its proof"
        assert entry.reason or entry.verdict != "kept"


@every_case
def test_equal_in_float64(name):
    case, result = CASES[name], done(name)
    largest = LARGEST_ERROR[first_dtype(result.net)]
    assert relative_error(result.net, result.folded.model, case.shapes()) <= largest
    if all(entry.verdict == "kept" for entry in result.folded.ledger.entries):
        x = torch.randn(case.shape, dtype=first_dtype(result.net))
        expected, given = (outputs_of(net, x.clone()) for net in (result.net, result.folded.model))
        assert all(torch.equal(y, y0) for y, y0 in zip(given, expected, strict=True))


@every_case
def test_no_batch_norm_runs_where_all_are_folded(name):
    case, result = CASES[name], done(name)
    entries = result.folded.ledger.entries
    if entries and all(entry.verdict in ("folded", "merged") for entry in entries):
        seen = operators_of(result.folded.model, case.shape, first_dtype(result.net))
        assert seen.batch_norms() == []
        assert not set(seen.names) & set(case.gone)


@every_case
def test_users_model_is_as_it_was(name):
    result = done(name)
    assert result.untouched
    memory = {tensor.data_ptr() for tensor in (*result.net.parameters(), *result.net.buffers())}
    new = (*result.folded.model.parameters(), *result.folded.model.buffers())
    assert not memory & {tensor.data_ptr() for tensor in new}


@every_row
def test_folded_model_is_an_ordinary_module(name):
    case, result = CASES[name], done(name)
    model = result.folded.model
    assert isinstance(model, type(result.net))
    assert {path: module.training for path, module in result.net.named_modules()}.items() >= {
        path: module.training
        for path, module in model.named_modules()
        if path in dict(result.net.named_modules())
    }.items()
    loaded = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (*loaded.parameters(), *loaded.buffers()):
            tensor.zero_()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(case.shape, dtype=first_dtype(result.net))
    expected, given = outputs_of(model, x.clone()), outputs_of(loaded, x.clone())
    assert all(torch.equal(y, y0) for y, y0 in zip(given, expected, strict=True))


@every_row
def test_folded_model_trains(name):
    case, result = CASES[name], done(name)
    x = torch.randn(case.shape, dtype=first_dtype(result.net))
    try:
        before = trained(copy.deepcopy(result.net), x.clone())
    except (RuntimeError, ValueError):
        pytest.skip("the network doesn't train")
    model = copy.deepcopy(result.folded.model)
    after = trained(model, x.clone())
    assert bool(before) == bool(after)
    norms = {path for path, module in result.net.named_modules() if hasattr(module, "running_mean")}
    there = dict(model.named_parameters())  # a branch that was merged into another one has none
    assert set(after) >= {name for name in before if name in there and name.rpartition(".")[0] not in norms}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@every_row
def test_folded_model_pickles_where_the_network_does(name):
    case, result = CASES[name], done(name)
    try:
        pickle.dumps(result.net)
    except Exception:
        pytest.skip("the network doesn't pickle")
    loaded = pickle.loads(pickle.dumps(result.folded.model))
    x = torch.randn(case.shape, dtype=first_dtype(result.net))
    expected, given = outputs_of(result.folded.model, x.clone()), outputs_of(loaded, x.clone())
    assert all(torch.equal(y, y0) for y, y0 in zip(given, expected, strict=True))


@pytest.mark.parametrize("name", [case.name for case in CASES.values() if case.materialises])
def test_weights_computed_at_run_time(name):
    (entry,) = done(name).folded.ledger.entries
    assert "materialise" in entry.reason + getattr(entry, "remedy", "")
    result = done(name, materialise=True)
    assert [entry.verdict for entry in result.folded.ledger.entries] == ["folded"]
    assert result.untouched
    assert relative_error(result.net, result.folded.model, CASES[name].shapes()) <= 1e-12
    assert operators_of(result.folded.model, CASES[name].shape, torch.float64).batch_norms() == []


@pytest.mark.parametrize(
    ("name", "border"), [(case.name, border) for case in CASES.values() for border in case.borders]
)
def test_zero_padding_with_a_border(name, border):
    case, result = CASES[name], done(name, border=border)
    assert {entry.verdict for entry in result.folded.ledger.entries} == {"folded"}
    assert result.untouched
    # a map of the border holds for one size of the input, whatever the batch
    shapes = case.shapes()[:2] if border == "map" else case.shapes()
    assert relative_error(result.net, result.folded.model, shapes) <= 1e-12
    assert operators_of(result.folded.model, case.shape, torch.float64).batch_norms() == []


@pytest.mark.parametrize("case", limits.NOT_NUMBERS, ids=lambda case: case.name)
def test_statistics_that_are_no_numbers(case):
    net = case.network()
    kept = repr(state_of(net))  # NaN isn't equal to itself
    folded = fold(net, case.shape)
    assert repr(state_of(net)) == kept
    (entry,) = folded.ledger.entries
    assert entry.verdict == "kept"
    assert entry.reason
    assert not entry.reason.startswith("taken back")
    x = torch.randn(case.shape, dtype=torch.float64)
    expected, given = outputs_of(net, x)[0], outputs_of(folded.model, x)[0]
    assert torch.equal(given.view(torch.int64), expected.view(torch.int64))


def test_value_kept_as_an_attribute():
    net = writes.OUTLIVES.network()
    with torch.no_grad():
        folded = fold(net, writes.OUTLIVES.shape)
    assert folded.ledger.kept == 1
    assert folded.ledger.entries[0].reason
    x = torch.randn(writes.OUTLIVES.shape, dtype=torch.float64)
    outputs_of(net, x), outputs_of(folded.model, x)
    assert torch.equal(net.seen, folded.model.seen)


def test_both_paths_of_a_choice_are_as_they_were():
    result = done("data_dependent_control_flow")
    shape = CASES["data_dependent_control_flow"].shape
    ran = set()
    for factor in (0.01, 10.0):
        x = factor * torch.randn(shape, dtype=torch.float64)
        expected, given = outputs_of(result.net, x), outputs_of(result.folded.model, x)
        assert (given[0] - expected[0]).abs().max() <= 1e-12 * expected[0].abs().max()
        with torch.no_grad(), Operators() as seen:
            result.net(x)
        ran.add(len(seen.batch_norms()))
    assert ran == {1, 2}, "one input for each path"


def test_the_shift_before_a_strided_transposed_convolution_has_no_bias():
    """The best bias in the least-squares sense leaves most of what the shift adds."""
    net = CASES["bn_convT_k2s2"].network()
    norm, layer = net
    shift = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        added = layer(shift.view(1, 3, 1, 1).expand(1, 3, 5, 4)) - layer.bias.view(1, 5, 1, 1)
        output = net(torch.randn(2, 3, 5, 4, dtype=torch.float64))
    left = added - added.mean((2, 3), keepdim=True)
    assert left.norm() > 0.8 * added.norm()
    assert left.abs().max() > 0.05 * output.abs().max()
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):  # one number per phase of the stride
        phase = added[..., i::2, j::2]
        assert (phase.amax((2, 3)) - phase.amin((2, 3))).abs().max() < 1e-12
