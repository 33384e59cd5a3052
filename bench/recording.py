"""The whole reading of a training step, against peers that answer part of it.

Training step at batch 128, AdamW. "cost" is everything: recording forward, loss, backward and optimizer, the
table, the forecast. Peers in the same process: PyTorch's MemTracker around the same step under fake tensors
(live bytes by category; no table, no FLOPs, no allocator), torch-preflight's estimate (saved tensors of the
forward pass on the meta device; beside it our recording of the forward pass alone), and torchinfo's
summary (forward MACs and outputs of layers with parameters; it runs the real forward pass, timed once).
"first" is the first call after the import, "above import" the memory that it adds, in a fresh process.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from bench.clock import interleaved, markdown
from convscope.cost import cost
from convscope.networks import alexnet, load
from convscope.tape import TrainingPlan, record

_PLAN = TrainingPlan("adamw")
_BATCH = 128
_FIRST_CALL = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import convscope as cs
from bench.recording import network
cs.cost.cost, cs.TrainingPlan
model, shape = network(sys.argv[1])
def highest():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the import
before = highest()
started = time.perf_counter()
cs.cost(model, shape, cs.TrainingPlan("adamw"))
print(time.perf_counter() - started, (highest() - before) / 1024)
"""


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a network of this benchmark and the shape of its batch; ResNet-50 is torchvision's."""
    if name == "alexnet":
        return alexnet(), (_BATCH, 3, 227, 227)
    library = torch.library.Library("torchvision", "DEF")  # lets torchvision import beside a CPU build
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    _libraries.append(library)
    return load("torchvision:resnet50").model, (_BATCH, 3, 224, 224)


_libraries: list[object] = []


def table() -> str:
    """Return seconds of one reading and the peers' ratios."""
    rows = []
    for name in ("alexnet", "resnet50"):
        model, shape = network(name)
        competitors: dict[str, Callable[[], object]] = {
            "cost": lambda model=model, shape=shape: cost(model, shape, _PLAN),
            "forward": lambda model=model, shape=shape: record(model, shape, _PLAN, step=_forward),
            "MemTracker": lambda model=model, shape=shape: _tracked(model, shape),
            "torch-preflight": lambda model=model, shape=shape: _preflight(model, shape),
        }
        seconds = interleaved(competitors, rounds=5)
        seconds["torchinfo"] = _torchinfo(model, shape)
        first, above = _first_call(name)
        ours, forward = seconds.pop("cost"), seconds.pop("forward")
        ratios = [f"{peer / ours:.1f}" for peer in seconds.values()]
        ratios.insert(2, f"{seconds['torch-preflight'] / forward:.1f}")
        rows.append((name, f"{ours:.3f}", f"{first:.2f}", f"{above:.0f} MiB", *ratios))
    peers = (
        "MemTracker / cost", "torch-preflight / cost", "torch-preflight / forward alone", "torchinfo / cost",
    )  # fmt: skip
    first_table = markdown(("network", "cost (s)", "first (s)", "above import", *peers), rows)
    return "\n\n".join([first_table, _growth()])


def _growth() -> str:
    """Seconds per operator as networks and batches grow."""
    rows = []
    for depth in (50, 100, 200, 400):
        model = nn.Sequential(*(_block() for _ in range(depth)))
        calls = 0

        def read(batch: int, model: nn.Module = model) -> None:
            nonlocal calls
            calls = len(cost(model, (batch, 8, 32, 32), _PLAN).rows)

        seconds = interleaved({"2": lambda: read(2), "512": lambda: read(512)}, rounds=3)
        per_row = 1e3 * seconds["2"] / calls
        ratio = seconds["512"] / seconds["2"]
        rows.append((str(calls), f"{seconds['2']:.3f}", f"{per_row:.2f}", f"{ratio:.2f}"))
    return markdown(("rows of the table", "cost (s)", "ms per row", "batch 512 / batch 2"), rows)


def _block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))


def _forward(model: nn.Module, args: tuple[object, ...], _: dict[str, object]) -> object:
    """The part of the step that torch-preflight looks at: the forward pass and what it saves."""
    return model(*args)


def _tracked(model: nn.Module, shape: tuple[int, ...]) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.func import functional_call

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        parameters = {n: nn.Parameter(mode.from_tensor(p.detach())) for n, p in model.named_parameters()}
        buffers = {n: mode.from_tensor(b) for n, b in model.named_buffers()}
        optimizer = torch.optim.AdamW(parameters.values(), foreach=True)
        inputs, target = torch.empty(shape), torch.zeros(shape[0], dtype=torch.long)
        tracker = MemTracker()
        tracker.track_external(optimizer, *parameters.values(), *buffers.values(), inputs)
        with warnings.catch_warnings(), tracker:
            warnings.simplefilter("ignore")
            for _ in range(2):  # states exist from the second step on
                optimizer.zero_grad()
                F.cross_entropy(functional_call(model, {**parameters, **buffers}, inputs), target).backward()
                optimizer.step()
                tracker.reset_mod_stats()
        tracker.get_tracker_snapshot("peak")


def _preflight(model: nn.Module, shape: tuple[int, ...]) -> None:
    import copy

    from torch_preflight.vram import ModelProfile, OptimizerKind, RunConfig, estimate_config
    from torch_preflight.vram.providers import meta
    from torch_preflight.vram.types import Confidence, ModelKind

    config = RunConfig(batch_size=shape[0], image_size=shape[2], optimizer=OptimizerKind.ADAMW)
    with torch.device("meta"):
        twin = copy.deepcopy(model).to("meta")
        total, trainable, buffers = meta.measure_parameters(twin)
        kept = meta.measure_activations(twin, config)
    profile = ModelProfile(
        name="", param_count=total, trainable_params=trainable, source="meta-device",
        confidence=Confidence.HIGH, kind=ModelKind.UNKNOWN, buffer_bytes=buffers,
        activation_bytes_per_sample=int(kept / shape[0] / 2),
    )  # fmt: skip
    estimate_config(profile, config)


def _torchinfo(model: nn.Module, shape: tuple[int, ...]) -> float:
    from torchinfo import summary

    started = time.perf_counter()
    summary(model, shape, verbose=0)
    return time.perf_counter() - started


def _first_call(name: str) -> tuple[float, float]:
    """Seconds of the first reading in a fresh process, and the MiB that it adds to its peak."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FIRST_CALL, name], capture_output=True, text=True, check=True
    )
    seconds, mebibytes = done.stdout.split()[-2:]
    return float(seconds), float(mebibytes)
