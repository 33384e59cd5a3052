"""Training steps of lean networks, against the same networks with everything saved.

Saved: bytes of the storages that autograd saves in the forward pass, parameters and buffers apart, counted by
hooks of this file's own; with ``residual=False`` beside it. Peak: every block that PyTorch's allocator hands
out in a real step, at its highest (``cost.measured.cpu_truth``); forecast: of the same from simulated steps.
Time: processor seconds of forward, cross-entropy and backward, the two steps by turns in one process, one
thread; median and range of the turns' ratios. Bits: whether loss, gradients and buffers are equal to the last
bit. All figures are lean / plain.
"""

import copy
import json
import subprocess
import sys
import time
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.clock import markdown
from bench.training import spread
from convscope.cost import cost
from convscope.cost.measured.cpu_truth import measure
from convscope.norm import lean
from convscope.tape import TrainingPlan

TURNS = 9
RUNS = (
    ("vgg16_bn", 224, 4),
    ("mobilenet_v2", 224, 16),
    ("resnet50", 224, 8),
    ("resnet18", 224, 16),
    ("densenet121", 224, 4),
    ("efficientnet_b0", 224, 8),
    ("convnext_tiny", 224, 4),
)
_COLUMNS = ("network", "images", "bits", "saved", "residual=False", "peak", "forecast", "time")
_PLAN = TrainingPlan("sgd", foreach=False)


def table() -> str:
    """Return one row per network, each measured in a process of its own."""
    rows = []
    for network, side, batch in RUNS:
        words = [sys.executable, "-m", "bench.lean", network, str(side), str(batch)]
        found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        rows.append(
            (
                network,
                f"{batch} × {side}²",
                "equal" if found["bits"] else "**differ**",
                *(f"{found[name]:.3f}" for name in ("saved", "without_residual", "peak", "forecast")),
                spread(found["times"]),
            )
        )
    return markdown(_COLUMNS, rows)


def _measure(network: str, side: int, batch: int) -> dict[str, object]:
    from torchvision import models  # importable since bench.training is imported

    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = models.get_model(network, weights=None).train()
    images, labels = torch.randn(batch, 3, side, side), torch.randint(0, 1000, (batch,))
    made_lean, partly = copy.deepcopy(plain), copy.deepcopy(plain)
    lean(made_lean)
    lean(partly, residual=False)
    times, bits = [], True
    for turn in range(TURNS + 1):
        seconds, found = {}, {}
        for net in (plain, made_lean) if turn % 2 else (made_lean, plain):
            seconds[net], found[net] = _step(net, images, labels)
        times.append(seconds[made_lean] / seconds[plain])
        bits = bits and all(map(torch.equal, found[made_lean], found[plain]))
    saved = _saved_bytes(plain, images)
    peaks = [measure(net, images.shape, _PLAN).peak_bytes for net in (made_lean, plain)]
    forecast = cost(made_lean, tuple(images.shape), _PLAN, device="cpu")
    assert forecast.forecast_without_lean is not None
    return {
        "bits": bits,
        "saved": _saved_bytes(made_lean, images) / saved,
        "without_residual": _saved_bytes(partly, images) / saved,
        "peak": peaks[0] / peaks[1],
        "forecast": forecast.forecast.allocated_peak_bytes
        / forecast.forecast_without_lean.allocated_peak_bytes,
        "times": times[1:],
        "median": median(times[1:]),
    }


def _step(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, list[Tensor]]:
    """Processor seconds of a step, and its loss, gradients and buffers."""
    net.zero_grad()
    torch.manual_seed(1)
    started = time.process_time()
    loss = F.cross_entropy(net(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    seconds = time.process_time() - started
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    return seconds, [loss.detach(), *gradients, *net.buffers()]


def _saved_bytes(net: nn.Module, images: Tensor) -> int:
    """What one forward pass has autograd save; hooks around a lean network get what it keeps."""
    standing = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
    found = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in standing:
            found[storage._cdata] = storage
        return tensor if tensor.grad_fn is None else tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _result = net(images)
        return sum(storage.nbytes() for storage in found.values())


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
