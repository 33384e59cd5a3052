"""What ``convscope checkup --fix`` writes: mended weights that the network as it is can load."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convscope.cli.show import note
from convscope.core.errors import ConvscopeError
from convscope.core.units import counted

if TYPE_CHECKING:
    from convscope.checkup import Mending
    from convscope.checkup.given import Images
    from convscope.networks import Loaded, Preprocessing

_ENDING = ".safetensors"
# Repairs of what a file of weights doesn't hold.
_SETTINGS = {"momentum-convention", "dominant-epsilon", "frozen-but-tracking"}


def check_out(out: str | None, fix: bool) -> None:
    """Refuse a file of weights that won't be written.

    Raises:
        ConvscopeError: nothing is to be mended, or the name ends otherwise.
    """
    if out is not None and not fix:
        raise ConvscopeError(f"--out {out!r} without --fix", "flags that go together", "add --fix")
    if out is not None and Path(out).suffix != _ENDING:
        raise ConvscopeError(f"output {out!r}", f"a name that ends with {_ENDING}", "choose another name")


def write_mended(found: "Mending", loaded: "Loaded", images: "Images | None", out: str) -> None:
    """Write the mended weights, and say what they don't hold; nothing if nothing was mended.

    Args:
        found: its copy's biases that went are written as zeros, so that the network as it is can load them.
        loaded: the given network.
        images: their mean and deviation are written along, if they were stated.
        out: the file.

    Raises:
        ConvscopeError: the file can't be written.
    """
    import copy

    import torch

    from convscope.networks import Extras, save_weights

    if not found.mended:
        note(f"not written, since nothing was mended: {out}")
        return
    fitting, num_zeros = copy.deepcopy(found.model), 0
    for name, tensor in loaded.model.named_parameters():
        path, _, own = name.rpartition(".")
        owner = fitting.get_submodule(path)
        if getattr(owner, own) is None:
            owner.register_parameter(own, torch.nn.Parameter(torch.zeros_like(tensor)))
            num_zeros += 1
    preprocessing = _preprocessing(loaded, images)
    save_weights(fitting, out, Extras(preprocessing, loaded.class_names or None, loaded.recipe))
    left = len(found.after.findings)
    note(f"written: {out}" + (f" (findings that are left: {left})" if left else ""))
    if num_zeros:
        biases = counted(num_zeros, "bias", "biases")
        note(f"{biases} that went: zeros in the file, for the network's code has them")
    for repair in found.mended:
        if _SETTINGS & set(repair.faults) and "statistics" not in repair.done:
            note(f"not in the file, since weights don't hold it: {repair.done}")


def _preprocessing(loaded: "Loaded", images: "Images | None") -> "Preprocessing | None":
    known = loaded.preprocessing
    if known is None or images is None or "--mean" not in images.normalised_by:
        return known
    return replace(known, mean=images.mean, std=images.std, source="--mean and --std of a check-up")
