"""``convscope stem``: the first layer and the strides, diagnosed."""

from convscope.cli.fresh import tell_fresh
from convscope.cli.images import source_for, tell_damaged
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import show


def stem(
    network: Modules,
    /,
    *,
    data: str,
    limit: int | None = None,
    options: NetworkOptions = NetworkOptions(),
    json: Json = False,
) -> None:
    """Diagnose the first convolution and all strides: filters, frequencies, aliasing, shifts of the image.

    Args:
        data: photos, digits, mnist5k, torchvision:NAME, a folder of pictures, tar files such as
            "shards/{000..009}.tar", or a folder that Hugging Face's datasets saved. Of a folder with train
            and validation in it, the latter.
        limit: Look at so many images at most, evenly spaced.
    """
    from convscope.sight import stem as reading

    loaded = options.load_modules(network)
    images = source_for(loaded, data, limit)
    result = reading(loaded.model, images)
    tell_damaged(images.damaged)
    tell_fresh(loaded)
    show(result, as_json=json)
