"""Loading trained weights into a network.

Which of a file's tensors belong to which parameter is decided by names alone, after wrappers' prefixes
(``module.`` of data parallelism, ``_orig_mod.`` of the compiler, …) have been taken off. Nothing is loaded
unless the shapes fit; what had no partner is reported, never passed over.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.core.result import Result
from convscope.networks.checkpoint import Checkpoint, TensorSet, read_checkpoint

# Wrappers put these in front of every name …
_LEADING = ("module.", "model.", "ema_model.", "ema.", "network.", "net.", "student.", "backbone.")
# … and these in front of the names inside any wrapped child.
_ANYWHERE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_STATISTICS = ("running_mean", "running_var")
# In the header of what `fold --out` writes.
_FOLDED = "convscope.folded"


@dataclass(frozen=True)
class Mismatch:
    """A tensor whose shape in the file differs from the network's.

    Attributes:
        name: in the network.
        in_file: its shape in the file.
        in_network: its shape in the network.
    """

    name: str
    in_file: tuple[int, ...]
    in_network: tuple[int, ...]


@dataclass(frozen=True)
class WeightsReport(Result):
    """What became of a file's tensors.

    Attributes:
        file: the file.
        place: where in the file the chosen tensors lie, such as ``"model_ema"``; empty for its top.
        is_average: whether they are an exponential moving average of the weights.
        alternatives: places of other tensors in the file with names that fit; ``"top"`` for its top.
        stripped: prefixes taken off their names, outermost first.
        loaded: how many tensors were loaded.
        missing: names in the network that the file lacks; they keep their values. A bias that folding left
            out, as it is zero, isn't missed: it becomes zero.
        unexpected: names in the file (without prefixes) that the network lacks; they were left out.
        unfilled: of the missing, parameters and running statistics that are as the network was built with: it
            isn't the trained network. Counters of batches aren't among them, nor names of a tensor that is in
            the file by another name.
        seems_folded: whether the file says that its network was folded, or its names do: no batch norm of
            it, but biases in front of where they were.
    """

    file: str
    place: str
    is_average: bool
    alternatives: tuple[str, ...]
    stripped: tuple[str, ...]
    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    unfilled: tuple[str, ...] = ()
    seems_folded: bool = False

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network came from the file, and every tensor of the file was used."""
        return not self.missing and not self.unexpected

    @property
    def differences(self) -> tuple[str, ...]:
        """What only one of file and network has, a line each."""
        told = (("the network", "the file", self.missing), ("the file", "the network", self.unexpected))
        return tuple(
            f"weights {self.file!r}: of {owner} not in {other}: {some(names)}"
            for owner, other, names in told
            if names
        )


def some(names: Sequence[str], most: int = 3) -> str:
    """Return names in a row, with how many more there are.

    Example:
        >>> some(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def unfilled(model: nn.Module, missing: Sequence[str]) -> tuple[str, ...]:
    """Return which missing tensors leave a network untrained; see :attr:`WeightsReport.unfilled`.

    Args:
        model: the network.
        missing: names of its tensors.
    """
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    named |= {n: t for n, t in model.named_buffers(remove_duplicate=False) if n.endswith(_STATISTICS)}
    lacking = set(missing)
    there = {id(tensor) for name, tensor in named.items() if name not in lacking}
    return tuple(name for name in missing if name in named and id(named[name]) not in there)


@dataclass(frozen=True)
class _Candidate:
    source: TensorSet
    stripped: tuple[str, ...]
    tensors: dict[str, Tensor]


def load_weights(model: nn.Module, file: str | Path) -> WeightsReport:
    """Load a file's tensors into a network and say what fitted.

    Of several sets of tensors in the file, and of their names with and without wrappers' prefixes, the
    combination with the most names in common with the network is taken; a moving average (EMA) goes before
    plain weights that fit equally well. The network is left as it was if anything is wrong.

    Args:
        model: the network; its parameters and buffers are filled in place and keep their dtype and device.
        file: safetensors, or a PyTorch checkpoint; see :mod:`convscope.networks.checkpoint`.

    Raises:
        ConvscopeError: the file can't be read, no name fits, or a tensor has another shape.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> file = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> torch.save({"state_dict": {"module.bias": torch.ones(1), "module.old": torch.ones(1)}}, file)
        >>> report = load_weights(nn.Linear(2, 1), file)
        >>> report.stripped, report.missing, report.unexpected
        (('module.',), ('weight',), ('old',))
    """
    return fill(model, Path(file), read_checkpoint(file))


def fitting(wanted: Mapping[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint whose names, without wrappers' prefixes, fit a network's best.

    Those are the ones that :func:`load_weights` would take, with what the network lacks and whatever their
    shapes.

    Args:
        wanted: the network's tensors by name.
        checkpoint: what was read.

    Example:
        >>> import torch
        >>> from convscope.networks.checkpoint import checkpoint_of
        >>> found = fitting({"bias": torch.ones(1)}, checkpoint_of({"module.bias": torch.zeros(1)}))
        >>> found
        {'bias': tensor([0.])}
    """
    best = _best([each for source in checkpoint.sets for each in _candidates(source)], wanted)
    return best.tensors | _biases_left_out(wanted, best.tensors, checkpoint)


def fill(model: nn.Module, path: Path, checkpoint: Checkpoint) -> WeightsReport:
    """Do what :func:`load_weights` does with a file that has been read already.

    Raises:
        ConvscopeError: as :func:`load_weights`, except for the reading.
    """
    wanted = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    candidates = [candidate for source in checkpoint.sets for candidate in _candidates(source)]
    best = _best(candidates, wanted)
    tensors = best.tensors | _biases_left_out(wanted, best.tensors, checkpoint)
    common = wanted.keys() & tensors.keys()
    if not common:
        raise ConvscopeError(
            f"weights {str(path)!r} name tensors such as {min(best.tensors)!r}",
            f"names of {type(model).__name__}, such as {next(iter(wanted), 'none: it has no weights')!r}",
            "check that file and network belong together",
        )
    _refuse_mismatches(path, model, [n for n in wanted if n in common], tensors)
    _copy(model, {name: tensors[name] for name in common})
    missing = tuple(name for name in wanted if name not in common)
    unexpected = tuple(name for name in best.tensors if name not in common)
    places = {c.source.place for c in candidates if wanted.keys() & c.tensors.keys()}
    return WeightsReport(
        file=str(path),
        place=best.source.place,
        is_average=_is_average(best),
        alternatives=tuple(sorted(place or "top" for place in places - {best.source.place})),
        stripped=best.stripped,
        loaded=len(common),
        missing=missing,
        unexpected=unexpected,
        unfilled=unfilled(model, missing),
        seems_folded=checkpoint.metadata.get(_FOLDED) == "true"
        or _seems_folded(model, missing, unexpected, common),
    )


def _biases_left_out(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], checkpoint: Checkpoint
) -> dict[str, Tensor]:
    """Zeros for the biases of layers that a folded network has without one."""
    if checkpoint.metadata.get(_FOLDED) != "true":
        return {}
    return {
        name: torch.zeros_like(tensor, device="cpu")
        for name, tensor in wanted.items()
        if name not in tensors and name.endswith("bias") and f"{name.removesuffix('bias')}weight" in tensors
    }


def _seems_folded(
    model: nn.Module, missing: Sequence[str], unexpected: Sequence[str], common: Set[str]
) -> bool:
    """Whether no running statistics came from the file, but biases for layers that have none."""
    statistics = [name for name in missing if name.endswith(_STATISTICS)]
    biases = [name for name in unexpected if name.endswith(".bias")]
    layers = {path for path, module in model.named_modules() if getattr(module, "weight", None) is not None}
    return (
        bool(statistics)
        and not any(name.endswith(_STATISTICS) for name in common)
        and all(name.removesuffix(".bias") in layers for name in biases)
        and len(biases) == len(unexpected)
    )


def _candidates(source: TensorSet) -> list[_Candidate]:
    """The set with its names as they are, and with one wrapper's prefix after another taken off."""
    names = {name: name for name in source.tensors}
    stripped: list[str] = []
    for wrapper in _ANYWHERE:
        if any(wrapper in name for name in names.values()):
            stripped.append(wrapper)
            names = {name: short.replace(wrapper, "") for name, short in names.items()}
    found = [_Candidate(source, tuple(stripped), {short: source.tensors[n] for n, short in names.items()})]
    for prefixes in _prefix_chains(set(names.values())):
        lead = "".join(prefixes)
        inside = {s.removeprefix(lead): source.tensors[n] for n, s in names.items() if s.startswith(lead)}
        outside = {s: source.tensors[n] for n, s in names.items() if not s.startswith(lead)}
        found.append(_Candidate(source, (*stripped, *prefixes), {**outside, **inside}))
    return found


def _prefix_chains(names: set[str], depth: int = 3) -> list[tuple[str, ...]]:
    """Known prefixes, one after another, that lead some of the names: ``("model.", "module.")``."""
    chains: list[tuple[str, ...]] = []
    for prefix in _LEADING if depth else ():
        inner = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        if inner:
            chains += [(prefix,), *((prefix, *chain) for chain in _prefix_chains(inner, depth - 1))]
    return chains


def _best(candidates: list[_Candidate], wanted: Mapping[str, Tensor]) -> _Candidate:
    return max(candidates, key=lambda candidate: _rank(candidate, wanted))


def _rank(candidate: _Candidate, wanted: Mapping[str, Tensor]) -> tuple[int, bool, int]:
    return (len(wanted.keys() & candidate.tensors.keys()), _is_average(candidate), -len(candidate.stripped))


def _is_average(candidate: _Candidate) -> bool:
    return candidate.source.is_average or any("ema" in prefix for prefix in candidate.stripped)


def _refuse_mismatches(path: Path, model: nn.Module, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    wanted = model.state_dict()
    wrong = [
        Mismatch(name, tuple(tensors[name].shape), tuple(wanted[name].shape))
        for name in names
        if tensors[name].shape != wanted[name].shape
    ]
    if not wrong:
        return
    first, others = wrong[0], f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    action = "build the network with the options that it was trained with"
    best = path.with_name("best.safetensors")
    if path.name == "checkpoint.safetensors" and best.exists():  # a run's, to resume from
        action = f"give {str(best)!r}, which also says how its network was built"
    last = names[-1].rpartition(".")[0]
    if all(mismatch.name.rpartition(".")[0] == last for mismatch in wrong) and first.in_file:
        action = (
            f"the classifier has {first.in_file[0]} classes in the file: pass num_classes={first.in_file[0]}"
        )
    raise ConvscopeError(
        f"weights {str(path)!r}: {first.name} is {_by(first.in_file)}{others}",
        f"{_by(first.in_network)} as in {type(model).__name__}",
        action,
    )


def _copy(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load tensors; if PyTorch refuses halfway, put back what was there."""
    before = {name: t.detach().clone() for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    try:
        model.load_state_dict(tensors, strict=False)
    except Exception as error:
        model.load_state_dict(before, strict=False)
        raise ConvscopeError(
            f"weights that {type(model).__name__} refuses ({error})",
            "tensors that it can copy",
            "check the file",
        ) from error


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single value"
