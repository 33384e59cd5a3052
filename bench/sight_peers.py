"""Projections in 63 networks by five tools, against an oracle that shares nothing with any of them.

One unit of each network (`bench/sight_networks.py`), asked of every tool as `bench/sight_tools.py` shows, in
float64, each tool in a process of its own. The oracle (`tests/sight/oracle.py`) rewrites the calls that the
network's own code makes; it refuses an activation for which a rule says nothing, and so should a tool.

Error: ‖found − oracle‖ / ‖oracle‖. **equal**: at most 1e-12 (`bit`: the same bits). **gates**: right at the
ReLUs, but signal also goes through squeeze-and-excitation gates or a norm's statistics, where the oracle,
like convscope, takes them for recorded switches: another definition. **gradient**: the plain gradient, under
the rule's name, without a word. **mixed**: no rule for some activations on the way; the tool rewrote the
ReLUs that there are and gave the others their derivatives, without a word. **wrong**: none of these; without
a number where the oracle has no rule. **–**: an error which says so, where the oracle refuses too;
**refuses**: an error where it doesn't.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clock import markdown
from bench.sight_networks import NETWORKS, build, spot
from bench.sight_tools import RULES, TOOLS

EQUAL = 1e-12


@dataclass(frozen=True)
class Truth:
    """What is right for one network and rule.

    Attributes:
        answer: the oracle's, or None where the rule says nothing about some activation on the way.
        only_relus: the rule at ReLUs, derivatives elsewhere.
        gradient: derivatives everywhere.
    """

    answer: Tensor | None
    only_relus: Tensor
    gradient: Tensor


def verdict(found: Tensor | str, truth: Truth, is_gradient: bool = False) -> tuple[str, str]:
    """Return the kind of a tool's answer, one of those that the module's docstring lists, and its cell."""
    if isinstance(found, str):
        return ("–", "–") if truth.answer is None else ("refuses", f"refuses ({found.partition(':')[0]})")
    if truth.answer is not None:
        if error(found, truth.answer) <= EQUAL:
            return "equal", "equal, bit" if torch.equal(found, truth.answer) else "equal"
        size = f" {error(found, truth.answer):.2g}"
    else:
        size = ""
    if not is_gradient and error(found, truth.gradient) <= EQUAL:
        return "gradient", f"**gradient**{size}"
    if error(found, truth.only_relus) <= EQUAL:
        return ("mixed", "**mixed**") if truth.answer is None else ("gates", f"gates{size}")
    return "wrong", f"**wrong**{size}"


def error(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-300))


def truths(name: str) -> tuple[Any, dict[str, Truth]]:
    """Return the spot that is looked at in a network, and what is right there by rule."""
    from sight.oracle import NoRuleError, layers

    network, image = build(name)
    at = spot(network, image)

    def answer(rule: str, only_relus: bool = False) -> Tensor:
        found = layers(network, image, [at.layer], rule, only_relus=only_relus)[at.layer]
        return found.project(at.unit, at.position)

    gradient, found = answer("gradient"), dict[str, Truth]()
    for rule in RULES:
        only_relus = gradient if rule == "gradient" else answer(rule, only_relus=True)
        try:
            found[rule] = Truth(answer(rule), only_relus, gradient)
        except NoRuleError:
            found[rule] = Truth(None, only_relus, gradient)
    return at, found


def table() -> str:
    """Return the counts by tool and rule, then every network, then what unpooling by overwriting costs."""
    asked: dict[str, Any] = {}
    right: dict[str, dict[str, Truth]] = {}
    for name in NETWORKS:
        asked[name], right[name] = truths(name)
    verdicts = {
        (tool, rule): {name: verdict(found[rule], right[name][rule], rule == "gradient")
                       for name, found in answers.items()}
        for tool, answers in _answers(asked)
        for rule in TOOLS[tool].rules
    }  # fmt: skip
    kinds = ("equal", "–", "gates", "gradient", "mixed", "wrong", "refuses")
    rows = []
    for (tool, rule), cells in verdicts.items():
        counts = Counter(kind for kind, _ in cells.values())
        bits = sum(cell == "equal, bit" for _, cell in cells.values())
        equal = f"{counts['equal']} ({bits} bit)"
        rows.append((tool, rule, equal, *(str(counts[kind]) for kind in kinds[1:])))
    columns = [
        (tool, rule) for tool, rule in verdicts if tool == "convscope" or rule in ("deconvnet", "guided")
    ]
    each = [(f"`{name}`", *(verdicts[column][name][1] for column in columns)) for name in NETWORKS]
    versions = ", ".join(f"{tool.package} {version(tool.package)}" for tool in TOOLS.values())
    heads = [f"{tool}, {rule}" for tool, rule in columns]
    return "\n\n".join(
        [
            versions,
            markdown(("tool", "rule", *kinds), rows),
            markdown(("network", *heads), each),
            _unpooling(),
        ]
    )


def _answers(asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, dict[str, Tensor | str]]]]:
    """Every tool's answers, by network and rule."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(asked, Path(folder) / "spots.pt")
        for name in TOOLS:
            subprocess.run([sys.executable, "-m", "bench.sight_tools", name, folder], check=True)
            yield name, torch.load(Path(folder) / f"{name}.pt")


def _unpooling() -> str:
    """What ``MaxUnpool2d``, with which mirrored networks put signals back, makes of overlapping windows."""
    rows = []
    for name, size, pool in (
        ("AlexNet's conv1", (11, 4, 2), (3, 2, 0)),
        ("ResNet's conv1", (7, 2, 3), (3, 2, 1)),
        ("VGG's conv1_1", (3, 1, 1), (2, 2, 0)),
    ):
        kernel, stride, padding = pool
        errors, kept = zip(*(_unpooled(size, pool, seed) for seed in range(5)))
        window = f"{kernel}×{kernel}/{stride}, padding {padding}"
        rows.append((name, window, _span(errors, "{:.2f}"), _span(kept, "{:.0f} %")))
    head = ("map", "pool", "error of `MaxUnpool2d` against the gradient", "of the signal kept")
    return markdown(head, rows)


def _unpooled(filters: tuple[int, int, int], pool: tuple[int, int, int], seed: int) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(seed)
    kernel, stride, padding = filters
    image = torch.randn(1, 3, 224, 224, generator=generator, dtype=torch.float64)
    weight = torch.randn(64, 3, kernel, kernel, generator=generator, dtype=torch.float64)
    maps = F.conv2d(image, weight, None, stride, padding).relu().requires_grad_()
    pooled, switches = F.max_pool2d(maps, *pool, return_indices=True)
    signal = torch.rand(pooled.shape, generator=generator, dtype=torch.float64)
    (summed,) = torch.autograd.grad(pooled, maps, signal)
    overwritten = F.max_unpool2d(signal, switches, *pool, output_size=maps.shape)
    return error(overwritten, summed), 100 * float(overwritten.sum() / signal.sum())


def _span(numbers: tuple[float, ...], form: str) -> str:
    low, high = form.format(min(numbers)), form.format(max(numbers))
    return low if low == high else f"{low} to {high}"
