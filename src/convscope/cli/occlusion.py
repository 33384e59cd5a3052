"""``convscope occlusion``: what the answer and the units depend on in one image."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convscope.cli.counting import CountBar
from convscope.cli.fresh import tell_fresh
from convscope.cli.images import image_for, shown_image
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.networks import Loaded
    from convscope.sight import Occlusion
    from convscope.sight.occluding.plan import Colour


def occlusion(
    network: Modules,
    image: Annotated[str, Parameter(help="A picture file.")],
    /,
    *,
    options: NetworkOptions = NetworkOptions(),
    label: int | None = None,
    unit: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    window: int | None = None,
    stride: int | None = None,
    colour: str = "mean",
    inside: Annotated[bool, Parameter(negative="")] = False,
    plain: Annotated[bool, Parameter(negative="")] = False,
    compare: Annotated[bool, Parameter(negative="")] = False,
    out: str = "occlusion.png",
    json: Json = False,
) -> None:
    """Slide a window over an image and see what the class's probability and units' activity lose.

    Args:
        label: The class, from 0; default: the most probable one.
        unit: LAYER:CHANNEL to follow, or LAYER for its strongest channel; may be given several times.
        window: Side of the square in pixels; default: a seventh of the image's shorter side.
        stride: Step in pixels; default: half the window.
        colour: mean (of the image), zero, or numbers with commas between them, as the network gets them.
        inside: Keep the window inside the image.
        plain: Compute everything anew for every window.
        compare: Compare the units' maps with their projections.
        out: Write the picture to this PNG file.
    """
    from convscope.sight import OcclusionPlan, project
    from convscope.sight import occlusion as reading

    with CountBar("windows") as bar:
        plan = OcclusionPlan(
            window, stride, _colour(colour), overhang=not inside, reuse=not plain, progress=bar
        )
        units = [_unit(text) for text in unit]
        loaded = options.load_modules(network)
        pixels = image_for(loaded, image)
        found = reading(loaded.model, pixels, label, units, plan)
    if compare:
        for maps in found.units:
            found = found.compared_with(project(loaded.model, pixels, maps.layer, maps.unit))
    _write(found, loaded, pixels, out)
    tell_fresh(loaded)
    show(found, as_json=json)


def _write(found: "Occlusion", loaded: "Loaded", pixels: "Tensor", out: str) -> None:
    from convscope.core.files import whole_file
    from convscope.report.pictures.occlusion import occlusion_picture

    shown = shown_image(loaded, pixels)
    with whole_file(Path(out)) as temporary:
        occlusion_picture(found, shown, loaded.class_names or ()).save(temporary, format="PNG")
    note(f"picture written to {out}")


def _colour(text: str) -> "Colour":
    if text in ("mean", "zero"):
        return text  # type: ignore[return-value]
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConvscopeError(
            f"--colour {text!r}", "mean, zero, or numbers with commas between them", "write 0,0,0, say"
        ) from None


def _unit(text: str) -> tuple[str, int | None]:
    """A layer's address may hold a colon itself: a channel is a number behind the last one."""
    layer, _, channel = text.rpartition(":")
    return (layer, int(channel)) if layer and channel.isdigit() else (text, None)
