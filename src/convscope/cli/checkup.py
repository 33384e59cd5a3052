"""``convscope checkup``: whether the network's batch norms are healthy, and what to do about it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convscope.cli.checkup_images import checkup_images
from convscope.cli.explain import explain as tell
from convscope.cli.images import NormalisationOptions
from convscope.cli.mended import check_out, write_mended
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.progress import CheckupBar
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError
from convscope.core.paths import is_file

if TYPE_CHECKING:
    from convscope.checkup import Checkup, CheckupPlan, Mending
    from convscope.checkup.given import Given
    from convscope.cli.checkup_images import CheckupImages
    from convscope.networks import Loaded

_BATCH = 32
_SEED = 0


def checkup(
    network: Modules | None = None,
    /,
    *,
    options: NetworkOptions = NetworkOptions(),
    data: str | None = None,
    normalisation: NormalisationOptions = NormalisationOptions(),
    batch_size: Annotated[int | None, Parameter(show=False)] = None,
    max_batches: int | None = None,
    attribution: Annotated[bool, Parameter(negative="--no-attribution")] = True,
    reference: str | None = None,
    fix: Annotated[bool, Parameter(negative="")] = False,
    out: Annotated[str | None, Parameter(metavar="FILE")] = None,
    page: Annotated[str | None, Parameter(metavar="FILE")] = None,
    explain: Annotated[
        list[str] | None, Parameter(metavar="FAULT", consume_multiple=True, negative="")
    ] = None,
    json: Json = False,
) -> None:
    """Look for faults of batch norm, each with its evidence and a remedy.

    Args:
        data: photos, digits, mnist5k, torchvision:NAME, hf:FOLDER or a folder of pictures: what running
            statistics are compared with, in shuffled batches of --batch (32). Without it, only what the
            network itself tells is checked. A folder with a subfolder for each of the network's classes
            also shows the gap between training and test time.
            Pictures are resized by their shorter side and cut to the size of --input. Subfolders train and
            validation are understood, and the first is read; without them a fifth of the pictures is left
            for validation, as in training.
        batch_size: Images a batch; the same as --batch.
        max_batches: Batches to read; all without it.
        attribution: Whether a gap is attributed to layers, at a pass a layer.
        reference: What the network was made from: a network, or a file of weights.
        fix: Mend a copy as far as that is safe, and show before and after.
        out: With --fix: write the mended weights, as .safetensors, if anything was mended.
        page: Write findings and pictures as a page that opens offline, .html; with --fix, of the mended copy,
            with the repairs.
        explain: Print the page about a fault instead: what it is, how it is measured and mended; without a
            name, all faults. Of a rule that the network's file adds: what its docstring says.
    """
    if explain is not None:
        if network is not None:  # whose file may add rules
            options.load_modules(network)
        tell(explain, as_json=json)
        return
    if network is None:
        raise ConvscopeError(
            "checkup without a network", "a network, or --explain FAULT", "see convscope checkup --help"
        )
    check_out(out, fix)
    _check_page(page)
    if normalisation.is_given and data is None:
        raise ConvscopeError("--mean or --std without --data", "images that they are of", "add --data")
    import torch

    from convscope.checkup import CheckupPlan, Mending

    plan = CheckupPlan(max_batches=max_batches, attribute=attribution)  # refuses bad numbers at once
    torch.manual_seed(_SEED)  # weights that aren't loaded, and whatever draws, are the same each time
    loaded = options.load_modules(network)
    compared = None if reference is None else _reference(reference)
    images = checkup_images(loaded, data, _batch(options.batch, batch_size), normalisation)
    subject = _Subject(loaded, images, compared, _given(loaded, options.weights, images))
    found = _read(subject, plan, fix)
    if out is not None and isinstance(found, Mending):
        write_mended(found, loaded, images.facts, out)
    if page is not None:
        _write_page(found, page, network)
    show(found, as_json=json)


@dataclass(frozen=True)
class _Subject:
    """What is checked: the network, images or none, what it was made from, and what the report says of it."""

    loaded: "Loaded"
    images: "CheckupImages"
    reference: Any
    given: "Given"


def _read(subject: _Subject, plan: "CheckupPlan", fix: bool) -> "Mending | Checkup":
    """Check, or mend and check, with a bar; what comes out says what it was made of."""
    from convscope.checkup import checkup as reading
    from convscope.checkup import mend

    def dressed(found: "Checkup") -> "Checkup":
        return replace(subject.images.told(found), given=subject.given)

    model, data = subject.loaded.model, subject.images.data
    with CheckupBar() as bar:
        settings: dict[str, Any] = {"reference": subject.reference, "plan": replace(plan, progress=bar)}
        if not fix:
            return dressed(reading(model, data, **settings))
        mending = mend(model, data, **settings)
    return replace(mending, before=dressed(mending.before), after=dressed(mending.after))


def _given(loaded: "Loaded", weights: str | None, images: "CheckupImages") -> "Given":
    from convscope.checkup.given import Given

    shape = getattr(loaded.inputs, "shape", loaded.inputs)
    is_shape = isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)
    return Given(loaded.reference, weights, _SEED, tuple(shape[1:]) if is_shape else None, images.facts)


def _batch(batch: int | None, batch_size: int | None) -> int:
    if batch_size is not None and batch_size < 1:
        raise ConvscopeError(f"--batch-size {batch_size}", "a whole number from 1", "say how many images")
    return batch or batch_size or _BATCH


def _check_page(page: str | None) -> None:
    from convscope.report import check_page

    if page is not None:
        check_page(page)


def _write_page(found: "Mending | Checkup", page: str, network: str) -> None:
    from convscope.report import write_checkup

    note(f"written: {write_checkup(found, page, network)}")


def _reference(text: str) -> Any:
    """A file of weights as its path, else the network that a text names."""
    from convscope.networks import load

    return Path(text) if is_file(text) else load(text).model
