"""What other tools leave of a network's batch norms: how each is asked to fold, and how the rest is counted.

A batch norm is left if its operator still runs (PyTorch), if its node is in the optimised graph (ONNX), or if
a multiplication per channel that OpenVINO made of it is. OpenVINO's count is taken after its transformations
that don't depend on a device; what its CPU plugin runs together with a convolution counts as left.
"""

import contextlib
import copy
import importlib.util
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from bench.fold_compare import Runs, batch_norms_run


@dataclass(frozen=True)
class Peer:
    """A tool that folds.

    Attributes:
        packages: what must be installed.
        fold: from a network in evaluation mode and its inputs to whatever the tool makes of them; timed.
        runs: from that to a function of inputs.
        left: from that and inputs to the number of batch norms left.
        exact: whether it works in float64; the others are judged in float32.
    """

    packages: tuple[str, ...]
    fold: Callable[[nn.Module, Tensor], Any]
    runs: Callable[[Any], Runs] = lambda folded: folded
    left: Callable[[Any, Tensor], int] = batch_norms_run
    exact: bool = True

    def missing(self) -> list[str]:
        """Return the packages that aren't installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def versions(self) -> str:
        """Return name and version of every package."""
        return ", ".join(f"{name} {version(name)}" for name in self.packages)


# PyTorch ---------------------------------------------------------------------------------------------


def _fx(network: nn.Module, _inputs: Tensor) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    return fuse(network)


def _fx_unwrapped(network: nn.Module, inputs: Tensor) -> nn.Module:
    return _fx(unwrapped(network), inputs)


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a copy in which timm's batch norms with an activation are plain ones before their activation."""
    from timm.layers import BatchNormAct2d

    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNormAct2d):
                setattr(parent, name, _plain(child))
    return network


def _plain(layer: Any) -> nn.Sequential:
    plain = nn.BatchNorm2d(layer.num_features, eps=layer.eps, affine=layer.affine).to(layer.running_mean)
    plain.load_state_dict(layer.state_dict(), strict=False)
    return nn.Sequential(plain, layer.drop, layer.act).train(layer.training)


def _torchao(network: nn.Module, inputs: Tensor) -> nn.Module:
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
    from torchao.quantization.pt2e.quantizer import Quantizer

    class Nothing(Quantizer):
        """A quantizer that quantises nothing: what is left is the folding."""

        def annotate(self, model: Any) -> Any:
            return model

        def validate(self, model: Any) -> None:
            del model

    return prepare_pt2e(torch.export.export(network, (inputs,)).module(), Nothing())


# ONNX ------------------------------------------------------------------------------------------------


@torch.no_grad()
def _onnx_exporter(network: nn.Module, inputs: Tensor) -> Any:
    return torch.onnx.export(network, (inputs,), dynamo=True, verbose=False)


def _onnx_left(program: Any, _inputs: Tensor) -> int:
    return sum(node.op_type == "BatchNormalization" for node in program.model.graph.all_nodes())


def _onnx_runs(program: Any) -> Runs:
    import onnxruntime

    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        program.save(Path(folder) / "exported.onnx")
        return _session(Path(folder), level)[0]


@torch.no_grad()
def _onnxruntime(network: nn.Module, inputs: Tensor) -> tuple[Runs, int]:
    """Export, fold constants, optimise; without the folding every bias is computed and nothing folds."""
    import onnxruntime
    from onnxscript import optimizer

    program = torch.onnx.export(network, (inputs,), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    optimizer.inline(program.model)
    optimizer.fold_constants(program.model)
    with tempfile.TemporaryDirectory() as folder:
        program.save(Path(folder) / "exported.onnx")
        return _session(Path(folder), onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)


def _session(folder: Path, level: Any) -> tuple[Runs, int]:
    """Return what runs ``exported.onnx`` and the batch norms that are left once it is optimised."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        str(folder / "exported.onnx"), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    graph = onnx.load(folder / "optimised.onnx", load_external_data=False).graph
    left = sum(node.op_type == "BatchNormalization" for node in graph.node)
    return lambda inputs: [torch.as_tensor(y) for y in session.run(None, {name: inputs.numpy()})], left


# OpenVINO --------------------------------------------------------------------------------------------


def _openvino(network: nn.Module, inputs: Tensor) -> tuple[Any, int]:
    import openvino

    model = openvino.convert_model(network, example_input=inputs, input=[list(inputs.shape)])
    left = sum(_is_scale(operator) for operator in model.get_ops())
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return openvino.compile_model(model, "CPU", settings), left


def _is_scale(operator: Any) -> bool:
    """Whether it multiplies by a constant per channel, and OpenVINO made it, not the network's code."""
    if operator.get_type_name() != "Multiply":
        return operator.get_type_name() == "BatchNormInference"
    made = re.fullmatch(r"Multiply_\d+", operator.get_friendly_name())
    sources = [given.get_source_output() for given in operator.inputs()]
    return made is not None and any(
        source.get_node().get_type_name() == "Constant" and math.prod(source.get_shape()) > 1
        for source in sources
    )


def _openvino_runs(folded: tuple[Any, int]) -> Runs:
    compiled = folded[0]
    return lambda inputs: [torch.as_tensor(y) for y in compiled(inputs.numpy()).values()]


_ONNX = ("onnx", "onnxscript", "onnxruntime")

PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "torch.fx fuse": Peer(("torch",), _fx),
        "torch.fx fuse, unwrapped": Peer(("torch", "timm"), _fx_unwrapped),
        "torchao": Peer(("torchao",), _torchao),
        "ONNX exporter": Peer(_ONNX[:2], _onnx_exporter, _onnx_runs, _onnx_left, exact=False),
        "ONNX Runtime": Peer(
            _ONNX, _onnxruntime, lambda made: made[0], lambda made, _inputs: made[1], exact=False
        ),
        "OpenVINO": Peer(
            ("openvino",), _openvino, _openvino_runs, lambda made, _inputs: made[1], exact=False
        ),
    }
)
"""By the name that the tables show; ``unwrapped``: timm's batch norms with activation made plain first."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what exporters say on the way out of the report."""
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
