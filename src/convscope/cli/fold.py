"""``convscope fold``: the network without its batch norms, and files of it."""

import json as text
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from convscope.cli.images import is_known
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from torch import nn

    from convscope.fold import Folded
    from convscope.networks import Extras, Loaded

_OURS = {"alexnet", "zfnet"}
_BATCH_NORMS = {"batch", "sync", "renorm", "ghost"}


def fold(
    network: Modules,
    /,
    *,
    options: NetworkOptions = NetworkOptions(),
    border: Literal["keep", "map", "pad"] = "keep",
    merge: Annotated[bool, Parameter(negative="--no-merge")] = True,
    materialise: Annotated[bool, Parameter(negative="")] = False,
    measure: Annotated[bool, Parameter(negative="")] = False,
    repeats: Annotated[int | None, Parameter(show_default=lambda _: "20")] = None,
    out: Annotated[list[str] | None, Parameter(negative="", metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """Move test-time batch norm into the layers around it, prove it, and say where each one went.

    The network is folded in evaluation mode, whatever mode its modules are in.

    Args:
        border: What to do about a batch norm before a layer that pads with zeros: keep its shift, put it
            into a map of biases (which fixes the input's size), or pad with its numbers (an operator more).
        merge: Whether parallel branches become one convolution.
        materialise: Turn weights that are computed in every run (weight norm, standardised) into plain ones.
        measure: Time the network before, after and without any batch norm on this machine.
        repeats: Timed forward passes of each, with --measure.
        out: Write the folded network, checked against the original: .onnx, .pt2 or .safetensors (weights
            alone). Several times: all of them.
    """
    from convscope.fold import fold as reading
    from convscope.fold.export import check_format

    if repeats is not None and not measure:
        raise ConvscopeError(
            f"--repeats {repeats} without --measure", "flags that go together", "add --measure"
        )
    files = list(dict.fromkeys(out or ()))
    for file in files:
        check_format(file)
    loaded = options.load_modules(network)
    model = loaded.model.eval()
    wishes = _wishes(
        border=(border, "keep"),
        merge=(merge, True),
        materialise=(materialise, False),
        repeats=(repeats, None),
    )
    folded = reading(model, loaded.inputs, measure=measure, **wishes)
    _write(files, folded, loaded)
    if not folded.ledger.entries and network in _OURS:
        note("zfnet and alexnet have batch norm with --norm batch")
    show(folded, as_json=json)


def _wishes(**choices: tuple[object, object]) -> dict[str, Any]:
    """What differs from the library's own choice."""
    return {name: chosen for name, (chosen, default) in choices.items() if chosen != default}


def _write(files: Sequence[str], folded: "Folded", loaded: "Loaded") -> None:
    """Write all files, or as many as can be; the first one that can't is the error."""
    if not files:
        return
    from convscope.fold.export import export
    from convscope.networks import save_weights

    extras = _extras(folded, loaded)

    def with_header(network: "nn.Module", path: Path) -> None:
        save_weights(network, path, extras)

    said = _said(loaded)
    for file in files:
        beside = None if file.lower().endswith(".safetensors") else said
        note(export(folded, loaded.model, loaded.inputs, file, weights_writer=with_header, metadata=beside))
    _tell_said(said, loaded)


def _said(loaded: "Loaded") -> Mapping[str, str]:
    """What a program's or graph's metadata says of its inputs and outputs, where that is known."""
    said: dict[str, str] = {}
    if is_known(loaded):
        said["convscope.preprocessing"] = text.dumps(vars(loaded.preprocessing))
    if _has_names(loaded):
        said["convscope.class_names"] = text.dumps(loaded.class_names, ensure_ascii=False)
    return said


def _tell_said(said: Mapping[str, str], loaded: "Loaded") -> None:
    """Say which preprocessing the files state, or that they state none."""
    known = loaded.preprocessing if "convscope.preprocessing" in said else None
    names = f"{len(loaded.class_names):,} class names" if _has_names(loaded) else "no class names"
    if known is None:
        note(f"in the metadata: no preprocessing, since neither network nor weights state it; {names}")
        return
    note(
        f"in the metadata: images of {known.size[0]} × {known.size[1]}, (pixel / 255 − mean) / std with mean "
        f"{_numbers(known.mean)} and std {_numbers(known.std)}; {names}"
    )


def _has_names(loaded: "Loaded") -> bool:
    """Whether somebody named the classes."""
    from convscope.networks.preprocessing import default_class_names

    return bool(loaded.class_names) and loaded.class_names != default_class_names(len(loaded.class_names))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _extras(folded: "Folded", loaded: "Loaded") -> "Extras":
    """What a file of folded weights says about its network.

    Ours are the same network built without batch norm once all of it is folded, so that the weights load into
    that one; other networks' folded weights belong into ``fold(…).model``.
    """
    from convscope.networks import Extras

    recipe = loaded.recipe
    is_ours = recipe["reference"] in _OURS and recipe.get("norm") in _BATCH_NORMS
    whole = not folded.ledger.kept and not folded.ledger.partial
    network = {**recipe, "norm": "none"} if is_ours and whole else None
    return Extras(loaded.preprocessing, loaded.class_names or None, network)
