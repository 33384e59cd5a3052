"""``convscope invariance``: how far features and answer move when images are moved, scaled and turned."""

from convscope.cli.counting import CountBar
from convscope.cli.fresh import tell_fresh
from convscope.cli.images import source_for, tell_damaged
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import show
from convscope.core.errors import ConvscopeError


def invariance(
    network: Modules,
    /,
    *,
    data: str,
    options: NetworkOptions = NetworkOptions(),
    layers: str = "all",
    translation: str | None = None,
    scale: str | None = None,
    rotation: str | None = None,
    border: str = "reflect",
    images: int = 32,
    json: Json = False,
) -> None:
    """Measure how features and the predicted class's probability follow translation, scale and rotation.

    Args:
        data: photos, digits, mnist5k, torchvision:NAME, a folder of pictures, tar files such as
            "shards/{000..009}.tar", or a folder that Hugging Face's datasets saved. Of a folder with train
            and validation in it, the latter.
        layers: all, or module paths or addresses separated by commas.
        translation: Pixels downwards, separated by commas, or none; default: up to a quarter of the height.
        scale: Factors, or none; default: 0.6 to 1.8.
        rotation: Degrees counter-clockwise, or none; default: every 30.
        border: What comes in at the border: reflect, wrap or zero.
        images: How many images at most, evenly spaced.
    """
    from convscope.sight import InvariancePlan
    from convscope.sight import invariance as reading

    given = {"translation": translation, "scale": scale, "rotation": rotation}
    amounts = {name: _amounts(name, text) for name, text in given.items() if text is not None}
    with CountBar("images") as bar:
        plan = InvariancePlan(**amounts, border=border, num_images=images, progress=bar)  # type: ignore[arg-type]
        loaded = options.load_modules(network)
        wanted = layers if layers == "all" else tuple(layers.split(","))
        source = source_for(loaded, data)
        found = reading(loaded.model, source, wanted, plan=plan)
    tell_damaged(source.damaged)
    tell_fresh(loaded)
    show(found, as_json=json)


def _amounts(name: str, text: str) -> tuple[float, ...]:
    if text == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConvscopeError(
            f"--{name} {text!r}", "numbers with commas between them, or none", f"write --{name}=0,10,20, say"
        ) from None
