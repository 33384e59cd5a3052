"""The written graphs themselves: no batch norm, and weights where every reader of graphs finds them."""

from collections import Counter

import onnx
import pytest
import torch
from torch import nn

from convscope.fold import fold
from convscope.fold.export import export

SHAPE = (2, 3, 8, 6)
LINEAR = {"Conv", "ConvTranspose", "Gemm"}


def graph_of(original, shape, path):
    folded = fold(original, shape)
    export(folded, original, shape, path)
    onnx.checker.check_model(path, full_check=True)
    return onnx.load(path).graph, folded


def constants(graph):
    """How many constants each linear node reads, if all that it reads but its input are constants."""
    held = {tensor.name for tensor in graph.initializer}
    return [(node.op_type, len(node.input) - 1) for node in graph.node
            if node.op_type in LINEAR and held.issuperset(node.input[1:])]  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
def test_batch_norms_are_biases(bias, tmp_path, randomised):
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, bias=bias), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2, bias=bias), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6, bias=bias), nn.BatchNorm1d(6),
    )  # fmt: skip
    graph, folded = graph_of(randomised(layers), SHAPE, tmp_path / "net.onnx")
    assert folded.ledger.folded == 4
    operators = Counter(node.op_type for node in graph.node)
    assert "BatchNormalization" not in operators
    assert constants(graph) == [("Conv", 2), ("Conv", 2), ("ConvTranspose", 2), ("Gemm", 2)]
    assert not {"Expand", "Shape", "CastLike"} & set(operators)


def test_numbers_and_sizes(tmp_path, randomised):
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    graph, folded = graph_of(randomised(layers), (1, *SHAPE[1:]), tmp_path / "net.onnx")
    node = next(node for node in graph.node if node.op_type == "Conv")
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, tensor in zip(node.input[1:], (folded.model[0].weight, folded.model[0].bias), strict=True):
        assert torch.equal(torch.from_numpy(held[name].copy()), tensor.detach())
    sizes = [
        [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert sizes == [["batch", 3, 8, 6], ["batch", 8, 6, 4]]


class Branches(nn.Module):
    """Layers of several kinds, each before one whose batch norm gives it a bias."""

    KINDS = (
        (nn.Conv1d, nn.BatchNorm1d, (2, 3, 9)),
        (nn.Conv2d, nn.BatchNorm2d, SHAPE),
        (nn.Conv3d, nn.BatchNorm3d, (2, 3, 5, 6, 7)),
        (nn.ConvTranspose1d, nn.BatchNorm1d, (2, 3, 9)),
    )

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                kind(3, 4, 3, bias=False), nn.ReLU(), kind(4, 6, 1, bias=False), norm(6)
            )
            for kind, norm, _ in self.KINDS
        )  # fmt: skip

    def forward(self, *inputs):
        return tuple(branch(x) for branch, x in zip(self.branches, inputs, strict=True))


def test_a_layer_without_bias_computes_none(tmp_path, randomised):
    inputs = tuple(torch.randn(shape) for *_, shape in Branches.KINDS)
    graph, _ = graph_of(randomised(Branches()), inputs, tmp_path / "net.onnx")
    assert sorted(constants(graph)) == [
        *[("Conv", 1)] * 3, *[("Conv", 2)] * 3, ("ConvTranspose", 1), ("ConvTranspose", 2)
    ]  # fmt: skip
    assert Counter(node.op_type for node in graph.node) == {"Conv": 6, "ConvTranspose": 2, "Relu": 4}


class Kept(nn.Module):
    """Its batch norm's input and output are both read, the output by nothing with weights."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(x).sigmoid() * x


def test_a_batch_norm_that_stays_is_a_batch_norm(tmp_path, randomised):
    graph, folded = graph_of(randomised(Kept()), SHAPE, tmp_path / "net.onnx")
    assert folded.ledger.kept == 1
    assert [node.op_type for node in graph.node].count("BatchNormalization") == 1
