"""``convscope fold``: the network without its batch norms, and files of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

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

    for file in files:
        note(export(folded, loaded.model, loaded.inputs, file, weights_writer=with_header))


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
