"""FLOPs of hundreds of networks of timm and torchvision, against two other counters.

Multiply–accumulates of the forward pass, of the gradients of inputs and of weights, and parameters, for a
training step on a batch of two at each network's own input size, and of its forward pass in evaluation
mode, must equal those of `tests/cost/independent_count.py`, which counts Python functions and reads
autograd's graph; forward also those of PyTorch's `FlopCounterMode`. `tests/zoo.py` chooses the networks.
`python -m bench.flops` counts what `bench/flops.json` lacks.
"""

import argparse
import gc
import json
import sys
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.clock import markdown
from convscope.cost.arithmetic.work import uncounted
from convscope.cost.rows import table_of
from convscope.tape import TrainingPlan, record

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the zoo and the other counter live

# "ours", "independent": MACs forward, of input and of weight gradients; parameters; MACs in evaluation.
FIGURES = Path(__file__).with_name("flops.json")


def table() -> str:
    """Return how many of the networks in ``flops.json`` agree, by library."""
    figures = json.loads(FIGURES.read_text())
    rows = []
    for library in ("timm", "torchvision"):
        own = {name: entry for name, entry in figures.items() if name.startswith(f"{library}:")}
        equal = sum(is_equal(entry) for entry in own.values())
        hidden = sum(bool(entry.get("uncounted")) for entry in own.values())
        seconds = sorted(entry.get("seconds", 0.0) for entry in own.values())
        typical = f"{seconds[len(seconds) // 2]:.1f}" if seconds else "–"
        rows.append((library, *map(str, (len(own), equal, len(own) - equal, hidden)), typical))
    header = ("library", "networks", "all equal", "unequal", "with uncounted operators", "median seconds")
    return markdown(header, rows)


def is_equal(entry: dict[str, Any]) -> bool:
    """Whether all three counters agree on a network."""
    return (
        "error" not in entry
        and entry["ours"] == entry["independent"]
        and entry["ours"][0] == entry["pytorch"]
        and not entry["unknown"]
    )


def compared(reference: str) -> dict[str, Any]:
    """Return the figures of one network by every counter, or the error that one of them raised."""
    started = time.perf_counter()
    try:
        entry = _counts(reference)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
    return {**entry, "seconds": round(time.perf_counter() - started, 1)}


def _counts(reference: str) -> dict[str, Any]:
    from cost.independent_count import count
    from zoo import make_default

    net, shapes = make_default(reference)
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    given = shapes if len(shapes) > 1 else shapes[0]
    with FlopCounterMode(display=False) as pytorch:
        other = count(net, *inputs)
    tape = record(net, given, TrainingPlan())
    totals = table_of(tape).totals
    net.eval()
    other_inference = count(net, *inputs)
    inference = record(net, given)
    backward = (totals.backward_input_flops // 2, totals.backward_weight_flops // 2)
    return {
        "input": [list(shape) for shape in shapes],
        "ours": [totals.macs, *backward, totals.params, table_of(inference).totals.macs],
        "independent": [
            other.forward, other.to_input, other.to_weight, other.params, other_inference.forward
        ],
        "pytorch": pytorch.get_total_flops() // 2,
        "unknown": sorted({*other.unknown, *other_inference.unknown}),
        "uncounted": sorted(
            {f"{item.op} ({item.phase})" for run in (tape, inference) for item in uncounted(run)}
        ),
    }  # fmt: skip


def main() -> None:
    """Count the networks that aren't in ``flops.json``, for as long as is allowed; report what differs."""
    from zoo import chosen_networks

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=480.0, help="stop after about so long")
    parser.add_argument("--only", default="*", help="networks that match, such as 'timm:vit_*'")
    parser.add_argument("--again", choices=["nothing", "unequal", "everything"], default="nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    kept = {name: entry for name, entry in figures.items() if _is_kept(entry, given.again)}
    waiting = [name for name in chosen_networks() if fnmatch(name, given.only) and name not in kept]
    until = time.monotonic() + given.seconds
    for number, reference in enumerate(waiting):
        if time.monotonic() > until:
            print(f"{len(waiting) - number} networks are left: run again")
            break
        figures[reference] = entry = compared(reference)
        if not is_equal(entry) or entry["uncounted"]:
            print(reference, json.dumps(entry), flush=True)
        if number % 20 == 0 or number == len(waiting) - 1:
            write(figures)
        gc.collect()
    write(figures)
    print(table())


def _is_kept(entry: dict[str, Any], again: str) -> bool:
    return again == "nothing" or (again == "unequal" and is_equal(entry) and not entry["uncounted"])


def write(figures: dict[str, Any]) -> None:
    """Write ``flops.json``, one network a line."""
    lines = (f"{json.dumps(name)}: {json.dumps(figures[name])}" for name in sorted(figures))
    FIGURES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def define_torchvision_operators() -> torch.library.Library:
    """Make torchvision importable beside a PyTorch without its compiled operators."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _library = define_torchvision_operators()
    main()
