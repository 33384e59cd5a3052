"""Which gradient a matrix product of the backward pass computes, against arithmetic by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from convscope.cost import cost
from convscope.tape import TrainingPlan

BATCH, WIDTH, OUT = 3, 5, 4


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.layer(self.layer(x))


class BareProduct(nn.Module):
    """``x @ W`` with a bare parameter, and a learnt row added to x, whose gradient is a sum of x's."""

    def __init__(self):
        super().__init__()
        self.row, self.weight = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH, OUT))

    def forward(self, x):
        return (x + self.row) @ self.weight


class Gram(nn.Module):
    """A product of two activations."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = x * self.scale
        return x @ x.mT


class CustomLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight, grad.t() @ x


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.before = nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.ones(OUT, WIDTH))

    def forward(self, x):
        return CustomLinear.apply(self.before(x), self.weight)


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.before, self.block = nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.after = nn.Linear(WIDTH, OUT)
        self.use_reentrant = use_reentrant

    def forward(self, x):
        return self.after(checkpoint(self.block, self.before(x), use_reentrant=self.use_reentrant))


def _split(net, shape=(BATCH, WIDTH)):
    totals = cost(net, shape).totals
    return totals.forward_flops, totals.backward_input_flops, totals.backward_weight_flops


def test_first_linear_layer_has_only_a_weight_gradient():
    flops = 2 * BATCH * WIDTH * OUT
    assert _split(nn.Linear(WIDTH, OUT)) == (flops, 0, flops)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layer_over_several_axes(bias):
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=bias), nn.Linear(WIDTH, OUT, bias=bias))
    first, second = 2 * BATCH * 7 * WIDTH * WIDTH, 2 * BATCH * 7 * WIDTH * OUT
    assert _split(net, (BATCH, 7, WIDTH)) == (first + second, second, first + second)


def test_tied_layer_counts_each_of_its_calls():
    one = 2 * BATCH * WIDTH * WIDTH
    found = cost(Tied(), (BATCH, WIDTH))
    assert [row.address for row in found.rows[:2]] == ["layer#1", "layer#2"]
    assert [row.backward_weight_flops for row in found.rows[:2]] == [one, one]
    assert [row.backward_input_flops for row in found.rows[:2]] == [0, one]


def test_bare_product_beside_a_broadcast_parameter():
    flops = 2 * BATCH * WIDTH * OUT
    assert _split(BareProduct()) == (flops, flops, flops)


def test_product_of_activations_has_input_gradients_only():
    flops = 2 * BATCH * BATCH * WIDTH
    assert _split(Gram()) == (flops, 2 * flops, 0)


def test_normalised_weight_is_a_weight():
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), weight_norm(nn.Linear(WIDTH, OUT)))
    first, second = 2 * BATCH * WIDTH * WIDTH, 2 * BATCH * WIDTH * OUT
    assert _split(net) == (first + second, second, first + second)


def test_custom_functions_products():
    first, second = 2 * BATCH * WIDTH * WIDTH, 2 * BATCH * WIDTH * OUT
    assert _split(Custom()) == (first + second, second, first + second)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputation_is_apart_and_belongs_to_the_layer_recomputed(use_reentrant):
    found = cost(Checkpointed(use_reentrant), (BATCH, WIDTH))
    square, last = 2 * BATCH * WIDTH * WIDTH, 2 * BATCH * WIDTH * OUT
    assert found.totals.recompute_flops == square
    assert found.row("block.0").recompute_flops == square
    assert found.row("block.0").backward_weight_flops == square
    assert found.row("before").backward_weight_flops == square
    assert found.totals.backward_flops == 2 * (2 * square + last) - square
    assert found.totals.step_flops == found.totals.forward_flops + found.totals.backward_flops


def test_functional_recomputation_is_apart_too():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, OUT)
            self.weight = nn.Parameter(torch.ones(WIDTH, WIDTH))

        def forward(self, x):
            return self.after(
                checkpoint(lambda y: F.relu(y @ self.weight), self.before(x), use_reentrant=False)
            )

    found = cost(Functional(), (BATCH, WIDTH))
    square, last = 2 * BATCH * WIDTH * WIDTH, 2 * BATCH * WIDTH * OUT
    assert found.totals.recompute_flops == found.row("self#1:mm.1").recompute_flops == square
    assert found.totals.backward_flops == 2 * (2 * square + last) - square


def test_a_differentiable_backward_pass_is_not_taken_for_recomputation():
    def step(model, args, kwargs):
        out = model(*args, **kwargs)
        gradients = torch.autograd.grad(out.square().sum(), list(model.parameters()), create_graph=True)
        sum(gradient.square().sum() for gradient in gradients).backward()
        return out

    totals = cost(nn.Linear(WIDTH, OUT), (BATCH, WIDTH), step=step).totals
    assert totals.recompute_flops == 0
    assert totals.backward_flops > 2 * BATCH * WIDTH * OUT


def test_a_table_made_by_a_network_of_its_own_still_splits_by_layer():
    """Both layers see nothing but buffers and parameters, as those of learnt position tables do."""

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("places", torch.zeros(7, 2))
            self.first, self.second = nn.Linear(2, WIDTH), nn.Linear(WIDTH, OUT)

        def forward(self, x):
            return x.sum() + self.second(F.relu(self.first(self.places), inplace=True))

    found = cost(Table(), (BATCH, WIDTH))
    first, second = found.row("first"), found.row("second")
    assert (first.backward_input_flops, first.backward_weight_flops) == (0, 2 * 7 * 2 * WIDTH)
    assert (second.backward_input_flops, second.backward_weight_flops) == (2 * 7 * WIDTH * OUT,) * 2


def test_an_operand_made_from_parameters_and_constants_is_a_weight():
    class Gathered(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.table = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(9, WIDTH))

        def forward(self, x):
            places = torch.arange(OUT) + 1
            return (x * self.scale) @ self.table[places].t()

    flops = 2 * BATCH * WIDTH * OUT
    assert _split(Gathered()) == (flops, flops, flops)


def test_convolution_made_from_activations_still_splits_by_operand():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Linear(WIDTH, 2 * 3 * 3 * 3)

        def forward(self, image, code):
            return F.conv2d(image, self.kernel(code).view(2, 3, 3, 3))

    found = cost(Dynamic(), ((1, 3, 6, 6), (1, WIDTH)), TrainingPlan(loss=lambda out: out.sum()))
    row = next(row for row in found.rows if row.op == "convolution")
    assert (row.backward_input_flops, row.backward_weight_flops) == (0, row.forward_flops)


class OfVectors(nn.Module):
    """A learnt matrix and a learnt vector, each multiplied with what the input becomes."""

    def __init__(self, product):
        super().__init__()
        self.product = product
        self.scale = nn.Parameter(torch.ones(1))
        self.matrix, self.vector = nn.Parameter(torch.ones(OUT, WIDTH)), nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.ones(OUT))

    def forward(self, x):
        return self.product(self, x * self.scale)


@pytest.mark.parametrize(
    ("shape", "product", "macs", "to_input", "to_weight"),
    [
        # dx = Aᵀ dy is a product; dA = dy xᵀ has an element for every product of the forward pass.
        ((WIDTH,), lambda net, x: net.matrix @ x, OUT * WIDTH, OUT * WIDTH, OUT * WIDTH),
        ((WIDTH,), lambda net, x: x @ net.matrix.t(), OUT * WIDTH, OUT * WIDTH, OUT * WIDTH),
        ((BATCH, WIDTH), lambda net, x: x @ net.vector, BATCH * WIDTH, BATCH * WIDTH, BATCH * WIDTH),
        ((1, WIDTH), lambda net, x: x @ net.vector, WIDTH, WIDTH, WIDTH),
        (
            (WIDTH,),
            lambda net, x: torch.addmv(net.bias, net.matrix, x, beta=3.0, alpha=2.0),
            OUT * WIDTH, OUT * WIDTH, OUT * WIDTH,
        ),
        ((WIDTH,), lambda net, x: net.vector @ x, WIDTH, WIDTH, WIDTH),
        ((WIDTH,), lambda _, x: x @ x, WIDTH, 2 * WIDTH, 0),  # both its gradients are the input's
    ],
    ids=["A x", "x A", "X v", "one row", "addmv", "dot", "square"],
)  # fmt: skip
def test_products_with_a_vector_have_outer_gradients(shape, product, macs, to_input, to_weight):
    """By hand: every multiply–accumulate of the forward pass has its two in backward."""
    totals = cost(OfVectors(product), shape, TrainingPlan(loss=lambda y: y.sum())).totals
    assert (totals.macs, totals.forward_flops) == (macs, 2 * macs)
    assert (totals.backward_input_flops, totals.backward_weight_flops) == (2 * to_input, 2 * to_weight)


def test_an_input_has_no_outer_gradient():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(OUT, WIDTH))

        def forward(self, x):
            return self.matrix @ x

    assert _split(First(), (WIDTH,)) == (2 * OUT * WIDTH, 0, 2 * OUT * WIDTH)


def test_elementwise_products_of_vectors_are_no_products():
    totals = cost(OfVectors(lambda net, x: x * net.vector), (BATCH, WIDTH)).totals
    assert (totals.macs, totals.backward_flops) == (0, 0)


def test_a_complex_multiply_accumulate_is_one():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(OUT, WIDTH, dtype=torch.cfloat))

        def forward(self, x):
            return (self.matrix @ x).abs().sum()

    x = torch.ones(WIDTH, dtype=torch.cfloat)
    totals = cost(Complex(), x, TrainingPlan(loss=lambda y: y)).totals
    assert (totals.macs, totals.backward_weight_flops) == (OUT * WIDTH, 2 * OUT * WIDTH)
    assert totals.backward_input_flops == 0
