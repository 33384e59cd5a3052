"""A scan's progress as one safetensors file: its tensors, and the rest as JSON in the header."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.data import Damage
from convscope.sight.collecting.block_sums import BlockSums
from convscope.sight.collecting.identity import Identity
from convscope.sight.collecting.profile import Profile
from convscope.sight.collecting.progress import Progress
from convscope.sight.collecting.ranges import Ranges
from convscope.sight.collecting.statistics import Statistics
from convscope.sight.collecting.tally import Tally

_KEY = "convscope"
_TENSORS = ("values", "images", "places", "maximum", "num_active_images")
_STATISTICS = ("minimum", "num_active_positions")
_PROFILE = {"profile_images": "images", "profile": "peaks"}


def write_state(progress: Progress, identity: Identity, file: Path) -> None:
    """Write what is done; an older file of that name stays as it is until this one is whole.

    Raises:
        ConvscopeError: it can't be written; the disk may be full.
    """
    tensors: dict[str, Tensor] = {}
    layers = []
    for number, (address, tally) in enumerate(progress.tallies.items()):
        tensors |= {f"{number}.{name}": tensor for name, tensor in _tensors(tally).items()}
        layers.append({"address": address, **_facts(tally)})
    header = {
        "identity": dict(identity),
        "done": progress.done.spans,
        "num_images": progress.num_images,
        "damaged": sorted((each.path, each.reason) for each in progress.damaged),
        "layers": layers,
    }
    content = save({n: t.contiguous() for n, t in tensors.items()}, {_KEY: json.dumps(header)})
    try:
        with whole_file(file) as temporary:
            temporary.write_bytes(content)
    except ConvscopeError as error:
        raise ConvscopeError(
            error.given,
            f"room for the {len(content)} bytes of a scan's state",
            "what was saved before is kept: make room and start again",
        ) from error


def read_state(file: Path) -> tuple[Progress, Identity]:
    """Return what was done, and what its numbers depend on.

    Raises:
        ConvscopeError: the file is broken or none of a scan.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            header = json.loads((opened.metadata() or {})[_KEY])
        progress = Progress(
            {
                facts["address"]: _tally(number, tensors, facts)
                for number, facts in enumerate(header["layers"])
            },
            Ranges.of((start, stop) for start, stop in header["done"]),
            header["num_images"],
            frozenset(Damage(path, reason) for path, reason in header["damaged"]),
        )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ConvscopeError(
            f"state {str(file)!r}, which can't be read ({type(error).__name__}: {error})",
            "a scan's state as convscope wrote it",
            "delete the file: its images are then scanned again",
        ) from error
    return progress, header["identity"]


def _tensors(tally: Tally) -> dict[str, Tensor]:
    found = {name: getattr(tally, name) for name in _TENSORS}
    found |= {name: getattr(tally.profile, attribute) for name, attribute in _PROFILE.items()}
    if tally.statistics is not None:
        found |= {name: getattr(tally.statistics, name) for name in _STATISTICS}
        if tally.statistics.sums.nodes:
            found["sums"] = torch.stack(list(tally.statistics.sums.nodes.values()))
    return found


def _facts(tally: Tally) -> dict[str, Any]:
    facts: dict[str, Any] = {"num_images": tally.num_images, "size": tally.size}
    if tally.statistics is not None:
        facts["nodes"] = list(tally.statistics.sums.nodes)
        facts["num_values"] = tally.statistics.num_values
    return facts


def _tally(number: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Tally:
    own = {name: tensors[f"{number}.{name}"] for name in _TENSORS}
    statistics = None
    if "nodes" in facts:
        nodes = [(level, index) for level, index in facts["nodes"]]
        sums = dict(zip(nodes, tensors[f"{number}.sums"].unbind(), strict=True)) if nodes else {}
        of_units = {name: tensors[f"{number}.{name}"] for name in _STATISTICS}
        statistics = Statistics(**of_units, sums=BlockSums(sums), num_values=facts["num_values"])
    size = None if facts["size"] is None else (facts["size"][0], facts["size"][1])
    profile = Profile(**{attribute: tensors[f"{number}.{name}"] for name, attribute in _PROFILE.items()})
    return Tally(**own, profile=profile, num_images=facts["num_images"], size=size, statistics=statistics)
