"""Windows that hold the whole image's gates and statistics are projected exactly like the whole image."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.probe import probing
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.crops import cropping
from convscope.sight.projecting.rules import RuleBook
from convscope.tape import record
from convscope.tape.receptive_field import ReceptiveField, receptive_fields
from sight import gated_blocks
from sight.gated_blocks import Block, group_norm, layer_norm, spatial, squeeze_excite


class Deep(nn.Module):
    """Two blocks with strides between; the second's gates are made of what the first's have passed."""

    def __init__(self, block):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 2, 5, 2, padding=2), nn.Conv2d(4, 2, 3, 2, padding=1)
        self.one, self.two = Block(block), Block(block)

    def forward(self, x):
        return self.two(F.silu(self.down(F.silu(self.one(F.silu(self.stem(x)))))))


class Runs:
    """Projections by a rule book, without anything that cuts windows."""

    def __init__(self, probe, book):
        self.probe, self.book = probe, book

    def __call__(self, images, units, position):
        leaves = images.clone().requires_grad_()
        maps = self.probe.run_until("self", leaves)
        self.book.prepare(maps, self.probe, self.book.taken_gates())
        seed = torch.zeros_like(maps)
        for row, unit in enumerate(units):
            seed[row, unit, position[0], position[1]] = 1
        return torch.autograd.grad(maps, leaves, seed)[0], maps.detach()


# Those whose windows are known: the others (attention over positions, axes turned round) run whole.
HELD = {
    "squeeze_excite": 2, "in_place": 2, "gate_first": 2, "expanded": 2, "hard_gate": 2, "residual_gate": 2,
    "broadcasting_factor": 2, "spatial": 0, "group_norm": 4, "own_group_norm": 6, "instance_norm": 4,
    "layer_norm": 0, "own_layer_norm": 0, "layer_norm_written_out": 0, "norm_by_both_moments": 4,
    "root_mean_square_norm": 2, "global_response_norm": 2, "unit_length": 0, "attention_over_channels": 2,
    "chosen_by_the_mean": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_windows_give_the_whole_images_numbers(name):
    net = Deep(getattr(gated_blocks, name)).double().eval()
    images = torch.randn(3, 3, 97, 83, dtype=torch.float64)
    tape = record(net, images[:1])
    below = Below(tape)
    cut = cropping(below.fields("gated")[tape.outputs[0]], (97, 83))
    assert cut is not None
    assert len(below.hold_points) == HELD[name]
    rows, units, (height, width) = [2, 0, 2], [0, 3, 1], cut.size
    with probing(net) as probe:
        book = RuleBook("gated", below)
        book.install(probe)
        assert book.holds == bool(HELD[name])
        runs = Runs(probe, book)
        with book.recording() as frozen, torch.no_grad():
            bottom, right = (size - 1 for size in probe.run_until("self", images).shape[2:])
        for position in [(0, 0), (bottom, right), (bottom // 2, 0), (bottom // 2, right // 2)]:
            window = cut.window(position)
            across = slice(window.left, window.left + width)
            crops = images[rows][:, :, window.top : window.top + height, across]
            whole, maps = runs(images[rows], units, position)
            with book.holding(frozen.rows(rows)):
                part, part_maps = runs(crops, units, window.position)
            full = torch.zeros_like(whole)
            full[:, :, window.top : window.top + height, across] = part
            torch.testing.assert_close(full, whole, rtol=1e-11, atol=1e-15 * float(whole.abs().max()))
            values = part_maps[:, :, window.position[0], window.position[1]]
            torch.testing.assert_close(values, maps[:, :, position[0], position[1]], rtol=1e-11, atol=1e-12)
        if HELD[name]:  # without them it is another picture
            own, _ = runs(crops, units, window.position)
            assert float((own - part).norm() / part.norm()) > 1e-4


def test_what_serves_gates_alone_does_not_widen_the_field():
    def field(block, rule):
        tape = record(Block(block), (1, 2, 31, 31))
        return Below(tape).fields(rule)[tape.outputs[0]]

    assert field(squeeze_excite, "gated") == ReceptiveField((5, 5), (1, 1), (0, 0))
    assert field(squeeze_excite, "gradient") is None
    assert field(group_norm, "guided") == ReceptiveField((5, 5), (1, 1), (0, 0))
    # A neighbourhood's gate counts with what it sees: windows hold nothing in its place.
    assert field(spatial, "gated") == ReceptiveField((7, 7), (1, 1), (-1, -1))
    assert field(layer_norm, "gated") == ReceptiveField((5, 5), (1, 1), (0, 0))


def test_a_unit_of_the_gate_itself_sees_the_whole_image():
    tape = record(Block(squeeze_excite), (1, 2, 31, 31))
    below, plain = Below(tape), receptive_fields(tape)
    pooled = next(call.output for call in tape.calls if call.op == "mean")
    assert pooled in plain
    assert below.fields("gated")[pooled] is None


def test_values_of_another_shape_are_refused():
    net = Block(squeeze_excite)
    below = Below(record(net, (1, 2, 31, 31)))
    with probing(net) as probe, torch.no_grad():
        book = RuleBook("gated", below)
        book.install(probe)
        with book.recording() as frozen:
            probe.run_until("self", torch.randn(2, 2, 31, 31))
        with book.holding(frozen), pytest.raises(ConvscopeError, match=r"\(3, 8\).*run the whole images"):
            probe.run_until("last", torch.randn(3, 2, 31, 31))


def test_recording_and_holding_end_with_their_blocks():
    net = Block(squeeze_excite).double()
    below = Below(record(net, (1, 2, 31, 31)))
    images = torch.randn(2, 2, 15, 15, dtype=torch.float64)
    with probing(net) as probe, torch.no_grad():
        book = RuleBook("gated", below)
        book.install(probe)
        alone = probe.run_until("self", images)
        with book.recording() as frozen:
            probe.run_until("self", images)
        (before,) = (tensor.clone() for tensor in frozen.values.values())
        probe.run_until("self", 2 * images)
        assert torch.equal(next(iter(frozen.values.values())), before)
        with pytest.raises(RuntimeError, match="stopped"), book.holding(frozen.rows([1, 0])):
            swapped = probe.run_until("self", images)
            raise RuntimeError("stopped")
        assert not torch.equal(swapped, alone)
        assert torch.equal(probe.run_until("self", images), alone)
