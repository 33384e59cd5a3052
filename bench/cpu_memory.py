"""Memory of real steps on the CPU, against the forecast for device "cpu".

Measured: the third of three real steps, every block that PyTorch's allocator handed out. Error: forecast /
measured − 1, first against the peak as it is, then against the peak without blocks that an operator takes and
gives back inside itself, which is what a recording of tensors can know; what operators took at the peak is
beside it. Those are oneDNN's layouts of input, weight and output, and its sums for the gradients of weights;
they depend on the processor, and small images make them large against the rest.
"""

import statistics
import sys
import warnings

import torch

from bench.clock import markdown
from convscope.core.units import format_bytes
from convscope.cost.measured.cpu_truth import CpuTruth, measure
from convscope.cost.memory.forecast import forecast
from convscope.networks import load
from convscope.tape import TrainingPlan, record

NETWORKS = {
    "alexnet": 227, "zfnet": 224,
    "torchvision:densenet121": 64, "torchvision:googlenet": 64, "torchvision:mobilenet_v2": 64,
    "torchvision:mobilenet_v3_small": 64, "torchvision:resnet18": 64, "torchvision:shufflenet_v2_x0_5": 64,
    "torchvision:squeezenet1_1": 64,
    "timm:convmixer_768_32": 56, "timm:convnext_atto": 64, "timm:efficientnet_lite0": 64,
    "timm:ghostnetv3_050": 64, "timm:hrnet_w18_small": 64, "timm:mixnet_s": 64, "timm:mobilevit_xxs": 64,
    "timm:regnetx_002": 64, "timm:res2net50_14w_8s": 64, "timm:resnetv2_50d": 64, "timm:skresnet18": 64,
}  # fmt: skip
PLANS = {
    "sgd, foreach=False": TrainingPlan("sgd", foreach=False),
    "sgd-momentum, foreach=False": TrainingPlan("sgd-momentum", foreach=False),
    "adamw, foreach=True": TrainingPlan("adamw", foreach=True),
    "inference": None,
}
BATCH = 2
_COLUMNS = (
    "network", "plan", "measured", "forecast", "error %", "without blocks inside operators: error %",
    "inside the operator at the peak",
)  # fmt: skip


def table() -> str:
    """Return one row per network and plan, and the medians and extremes of the errors."""
    _make_torchvision_importable()
    rows, errors, tensor_errors = [], [], []
    for reference, size in NETWORKS.items():
        net, shape = load(reference).model, (BATCH, 3, size, size)
        for name, plan in PLANS.items():
            found = measure(net, shape, plan)
            expected = forecast(record(net, shape, plan, device="cpu")).allocated_peak_bytes
            errors.append(expected / found.peak_bytes - 1)
            tensor_errors.append(expected / found.tensor_peak_bytes - 1)
            peaks = format_bytes(found.peak_bytes), format_bytes(expected)
            signed = _percent(errors[-1]), _percent(tensor_errors[-1])
            rows.append((reference, name, *peaks, *signed, _inside(found)))
    for name, of in (("median", statistics.median), ("lowest", min), ("highest", max)):
        rows.append((f"**{name}**", "", "", "", _percent(of(errors)), _percent(of(tensor_errors)), ""))
    return markdown(_COLUMNS, rows)


def _percent(error: float) -> str:
    return f"{100 * error:+.3f}"


def _inside(found: CpuTruth) -> str:
    return ", ".join(
        f"{op} {format_bytes(size)}" for op, size in found.inside_operators.items() if size > 1024
    )


def _make_torchvision_importable() -> None:
    """Define what torchvision's import looks for beside a PyTorch without its compiled operators."""
    if "torchvision" in sys.modules or hasattr(torch.ops.torchvision, "nms"):
        return
    global _library  # it defines the operators for as long as it lives
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(table())
