"""``convscope checkup``: whether the network's batch norms are healthy, and what to do about it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convscope.cli.images import data_for
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.progress import CheckupBar
from convscope.cli.show import draw, note, show
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.checkup import Checkup, Mending
    from convscope.data import ImageData
    from convscope.networks import Loaded

_BATCH = 32
_ENDING = ".safetensors"
# Repairs of what a file of weights doesn't hold.
_SETTINGS = {"momentum-convention", "dominant-epsilon", "frozen-but-tracking"}


def checkup(
    network: Modules | None = None,
    /,
    *,
    options: NetworkOptions = NetworkOptions(),
    data: str | None = None,
    batch_size: Annotated[int | None, Parameter(show=False)] = None,
    max_batches: int | None = None,
    attribution: Annotated[bool, Parameter(negative="--no-attribution")] = True,
    reference: str | None = None,
    fix: Annotated[bool, Parameter(negative="")] = False,
    out: Annotated[str | None, Parameter(metavar="FILE")] = None,
    page: Annotated[str | None, Parameter(metavar="FILE")] = None,
    explain: Annotated[str | None, Parameter(metavar="FAULT")] = None,
    json: Json = False,
) -> None:
    """Look for faults of batch norm, each with its evidence and a remedy.

    Args:
        data: photos, digits or a folder of pictures: what running statistics are compared with, in batches
            of --batch (32). Without it, only what the network itself tells is checked. A folder with a
            subfolder for each of the network's classes also shows the gap between training and test time.
        batch_size: Images a batch; the same as --batch.
        max_batches: Batches to read; all without it.
        attribution: Whether a gap is attributed to layers, at a pass a layer.
        reference: What the network was made from: a network, or a file of weights.
        fix: Mend a copy as far as that is safe, and show before and after.
        out: With --fix: write the mended weights, as .safetensors.
        page: Write findings and pictures as a page that opens offline, .html; with --fix, those after it.
        explain: Print the page about a fault instead: what it is, how it is measured and mended.
    """
    if explain is not None:
        _explain(explain)
        return
    if network is None:
        raise ConvscopeError(
            "checkup without a network", "a network, or --explain FAULT", "see convscope checkup --help"
        )
    _check_out(out, fix)
    _check_page(page)
    from convscope.checkup import CheckupPlan, mend
    from convscope.checkup import checkup as reading

    plan = CheckupPlan(max_batches=max_batches, attribute=attribution)  # refuses bad numbers at once
    loaded = options.load_modules(network)
    compared = None if reference is None else _reference(reference)
    batches = _batches(loaded, data, options.batch or batch_size or _BATCH)
    with CheckupBar() as bar:
        plan = CheckupPlan(max_batches=max_batches, attribute=attribution, progress=bar)
        given: dict[str, Any] = {"reference": compared, "plan": plan}
        mending = mend(loaded.model, batches, **given) if fix else None
        found = reading(loaded.model, batches, **given) if mending is None else mending.after
    if out is not None and mending is not None:
        _write(mending, loaded, out)
    if page is not None:
        _write_page(found, page, network)
    show(mending or found, as_json=json)


def _explain(fault: str) -> None:
    """Print a fault's page, set for reading on a terminal and as it is elsewhere."""
    from rich.markdown import Markdown

    from convscope.checkup.explain import page_of

    page = page_of(fault)
    if sys.stdout.isatty():
        draw(Markdown(page))
    else:
        print(page, end="")


def _check_out(out: str | None, fix: bool) -> None:
    if out is not None and not fix:
        raise ConvscopeError(f"--out {out!r} without --fix", "flags that go together", "add --fix")
    if out is not None and Path(out).suffix != _ENDING:
        raise ConvscopeError(f"output {out!r}", f"a name that ends with {_ENDING}", "choose another name")


def _check_page(page: str | None) -> None:
    from convscope.report import check_page

    if page is not None:
        check_page(page)


def _write_page(found: "Checkup", page: str, network: str) -> None:
    from convscope.report import write_checkup

    note(f"written: {write_checkup(found, page, network)}")


def _reference(text: str) -> Any:
    """A file of weights as its path, else the network that a text names."""
    from convscope.networks import load

    return Path(text) if Path(text).is_file() else load(text).model


def _batches(loaded: "Loaded", data: str | None, batch_size: int) -> Any:
    """The batches that a network is checked on, or its inputs' shape without data."""
    if data is None:
        shape = getattr(loaded.inputs, "shape", loaded.inputs)
        is_shape = isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)
        return tuple(shape) if is_shape else None
    images = data_for(loaded, data)
    return _Labelled(images.batches("train", batch_size), _labels(loaded, images))


@dataclass(frozen=True)
class _Labelled:
    """Batches of images, with the network's own numbers of their classes.

    Attributes:
        batches: images and the data's labels.
        numbers: the network's number of each of the data's classes; None if these aren't its classes.
    """

    batches: Any
    numbers: "Tensor | None"

    @property
    def generator(self) -> Any:
        """What the loader shuffles by, so that each reading can shuffle alike."""
        return self.batches.generator

    def __iter__(self) -> Iterator[Any]:
        for images, labels in self.batches:
            yield images if self.numbers is None else (images, self.numbers[labels])

    def __len__(self) -> int:
        return len(self.batches)


def _labels(loaded: "Loaded", images: "ImageData") -> "Tensor | None":
    """The network's number of each class of the data; None, with a note, if it can't be told."""
    import torch

    names = loaded.class_names
    if names and set(images.classes) <= set(names):
        return torch.tensor([list(names).index(name) for name in images.classes])
    if not names and len(images.classes) > 1 and _num_outputs(loaded) == len(images.classes):
        return torch.arange(len(images.classes))
    note("no gap between training and test time: the data's classes aren't those of the network")
    return None


def _num_outputs(loaded: "Loaded") -> int | None:
    """How many scores the network gives; None if its output isn't one list of scores an image."""
    from convscope.tape import record

    tape = record(loaded.model, loaded.inputs)
    shapes = [tape.values[value].shape for value in tape.outputs]
    return int(shapes[0][1]) if len(shapes) == 1 and len(shapes[0]) == 2 else None


def _write(found: "Mending", loaded: "Loaded", out: str) -> None:
    """Write the mended weights so that the network as it is can load them: biases that went are zeros."""
    import copy

    import torch

    from convscope.networks import Extras, save_weights

    fitting = copy.deepcopy(found.model)
    for name, tensor in loaded.model.named_parameters():
        path, _, own = name.rpartition(".")
        owner = fitting.get_submodule(path)
        if getattr(owner, own) is None:
            owner.register_parameter(own, torch.nn.Parameter(torch.zeros_like(tensor)))
    save_weights(fitting, out, Extras(loaded.preprocessing, loaded.class_names or None, loaded.recipe))
    note(f"written: {out}")
    for repair in found.mended:
        if _SETTINGS & set(repair.faults) and "statistics" not in repair.done:
            note(f"not in the file, since weights don't hold it: {repair.done}")
