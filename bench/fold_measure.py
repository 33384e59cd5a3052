"""One network folded by one tool, in a process of its own: what is left, what is wrong, how long it took."""

import hashlib
import inspect
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import convscope as cs
from bench.fold_compare import WRONG, batch_norms_run, functions_run, in_float64, outputs, relative_error
from bench.fold_networks import NETWORKS, Network
from bench.fold_peers import PEERS, Peer, quietly

OURS = "convscope"
SEEDS = (2, 3)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# In float32 an output is wrong beyond this, or beyond so many times the network's own rounding.
_WRONG_FLOAT32, _TIMES_OWN = 1e-4, 30


def measured(method: str, name: str) -> dict[str, Any]:
    """Return the entry of one network: its numbers, or ``failure`` with the error in a line."""
    torch.set_num_threads(1)
    network = NETWORKS[name]
    try:
        with quietly():
            return _ours(network) if method == OURS else _peer(PEERS[method], network)
    except Exception as error:
        said = " ".join(_COLOUR.sub("", str(error)).split())
        return {"failure": f"{type(error).__name__}: {said}"[:200]}


def sources() -> str:
    """Return a digest of the sources that fold, which our measurements belong to."""
    digest = hashlib.sha256()
    for path in sorted(Path(cs.fold.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work gives, and the seconds of processor time that it takes, in all threads together.

    Other work on the machine hardly changes them, so that several networks can be measured at a time.
    """
    started = time.process_time()
    made = work()
    return made, round(time.process_time() - started, 3)


def _small() -> tuple[nn.Module, Tensor]:
    """A network to warm up with, so that no clock sees imports."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    return network, torch.randn(2, 3, 8, 8)


# Ours ------------------------------------------------------------------------------------------------


def _ours(network: Network) -> dict[str, Any]:
    """Left, verdicts and error without and with merging; ``seconds`` with the proof, in float32."""
    small, inputs = _small()
    cs.fold(small, tuple(inputs.shape))
    before = network.build()
    folded, seconds = _timed(lambda: cs.fold(before, network.shape))
    _, seconds_unproved = _timed(lambda: unproved(before, network.shape))
    entry: dict[str, Any] = {"seconds": seconds, "seconds_unproved": seconds_unproved, "sources": sources()}
    entry["error_float32"] = _error(in_float64(before), folded.model, network, torch.float32)
    exact = in_float64(before)
    entry["apart"] = _judged(exact, network, merge=False)
    entry["merged"] = _judged(exact, network, merge=True) if _can_merge() else entry["apart"]
    return entry


def _can_merge() -> bool:
    return "merge" in inspect.signature(cs.fold).parameters


def _judged(exact: nn.Module, network: Network, merge: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"merge": merge} if _can_merge() else {}
    folded = cs.fold(exact, network.shape, **options)
    inputs = network.inputs(seed=1, dtype=torch.float64)
    verdicts = Counter(entry.verdict for entry in folded.ledger.entries)
    return {
        "batch_norms": batch_norms_run(exact, inputs),
        "expected": network.batch_norms,
        "left": batch_norms_run(folded.model, inputs) + verdicts["partial"],
        "error": _error(exact, folded.model, network, torch.float64),
        "claimed": folded.max_error,
        "verdicts": dict(verdicts),
        "added": functions_run(folded.model, inputs) - functions_run(exact, inputs),
    }


def unproved(before: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Fold without any proof: what recording, planning and carrying out take."""
    from convscope.fold.proof.settle import Settled

    module = sys.modules[cs.fold.fold.__module__]
    with patch.object(module, "settle", lambda _model, planner, _inputs: Settled(planner({}))):
        return cs.fold(before, shape).model


# Peers -----------------------------------------------------------------------------------------------


def _peer(peer: Peer, network: Network) -> dict[str, Any]:
    peer.fold(*_small())
    before, inputs = network.build(), network.inputs(seed=1)
    folded, seconds = _timed(lambda: peer.fold(before, inputs))
    entry: dict[str, Any] = {"left": peer.left(folded, inputs), "seconds": seconds}
    exact = in_float64(before)
    if peer.exact:
        again = peer.fold(exact, inputs.double())
        error = _error(exact, peer.runs(again), network, torch.float64)
        return {**entry, "error": error, "wrong": error > WRONG}
    error = _error(exact, peer.runs(folded), network, torch.float32)
    own = _error(exact, before, network, torch.float32)
    return {
        **entry,
        "error_float32": error,
        "own_float32": own,
        "wrong": error > max(_WRONG_FLOAT32, _TIMES_OWN * own),
    }


def _error(exact: nn.Module, runs: Any, network: Network, dtype: torch.dtype) -> float:
    """Largest relative error over fresh inputs, against the unfolded network in float64."""
    errors = []
    for seed in SEEDS:
        inputs = network.inputs(seed).to(dtype)
        errors.append(relative_error(outputs(exact, inputs.double()), outputs(runs, inputs)))
    return max(errors)
