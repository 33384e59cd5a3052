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


def test_the_numbers_in_the_graph_are_the_folded_ones(tmp_path, randomised):
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    graph, folded = graph_of(randomised(layers), SHAPE, tmp_path / "net.onnx")
    node = next(node for node in graph.node if node.op_type == "Conv")
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, tensor in zip(node.input[1:], (folded.model[0].weight, folded.model[0].bias), strict=True):
        assert torch.equal(torch.from_numpy(held[name].copy()), tensor.detach())


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Conv1d(3, 4, 3, bias=False), (2, 3, 9)),
    (nn.Conv2d(3, 4, 3, bias=False), SHAPE),
    (nn.Conv3d(3, 4, 3, bias=False), (2, 3, 5, 6, 7)),
    (nn.ConvTranspose1d(3, 4, 3, bias=False), (2, 3, 9)),
])  # fmt: skip
def test_a_layer_without_bias_computes_none(layer, shape, tmp_path, randomised):
    batch_norm = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    kind = type(layer)
    layers = nn.Sequential(layer, nn.ReLU(), kind(4, 6, 1, bias=False), batch_norm(6))
    graph, _ = graph_of(randomised(layers), shape, tmp_path / "net.onnx")
    name = kind.__name__[:-2]
    assert constants(graph) == [(name, 1), (name, 2)]
    assert Counter(node.op_type for node in graph.node) == {name: 2, "Relu": 1}


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


def test_the_batch_is_open_and_called_so(tmp_path, randomised):
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    graph, _ = graph_of(randomised(layers), (1, *SHAPE[1:]), tmp_path / "net.onnx")
    sizes = [
        [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert sizes == [["batch", 3, 8, 6], ["batch", 4, 6, 4]]
