"""``convscope project``: what in one image excites one unit."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convscope.cli.fresh import tell_fresh
from convscope.cli.images import image_for, shown_image
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import note, show


def project(
    network: Modules,
    image: Annotated[str, Parameter(help="A picture file.")],
    /,
    *,
    layer: str,
    unit: int,
    options: NetworkOptions = NetworkOptions(),
    rule: str | None = None,
    out: str | None = None,
    json: Json = False,
) -> None:
    """Project one unit's activation back to the image that caused it.

    Args:
        layer: A module path, such as features.relu3, or an operator's address, such as self#1:relu.2 for a
            function in the network's own code (see `convscope cost`).
        unit: The channel, from 0.
        rule: What activations do on the way back: deconvnet or guided (networks of ReLUs), gated (any
            x times gate(x)) or gradient; default: the one that suits the network.
        out: Write the image and the projection, side by side, to this PNG file; default: LAYER-UNIT-RULE.png.
    """
    from convscope.core.files import whole_file
    from convscope.report.pictures.projection import projection_picture
    from convscope.sight import project as reading

    loaded = options.load_modules(network)
    pixels = image_for(loaded, image)
    view = reading(loaded.model, pixels, layer, unit, rule)  # type: ignore[arg-type]
    target = Path(out or f"{layer.replace(':', '-').replace('#', '-')}-{unit}-{view.rule}.png")
    with whole_file(target) as temporary:
        projection_picture(view, shown_image(loaded, pixels)).save(temporary, format="PNG")
    note(f"picture written to {target}")
    tell_fresh(loaded)
    show(view, as_json=json)
