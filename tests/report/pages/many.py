"""A gallery of as many units as one likes, every block of its pictures in a colour of its own."""

from dataclasses import replace

import numpy as np
from PIL import Image

from convscope.sight.picturing.folder import write_index


def colours(unit):
    """Of a unit's patches, and of its projections."""
    patches = np.array((unit * 37 % 256, unit * 101 % 256, unit * 7 % 256))
    return patches.astype(np.uint8), (255 - patches).astype(np.uint8)


def gallery_of(gallery, count, folder):
    """Write a gallery of one layer with so many units, modelled on another one; return its folder."""
    layer = gallery.layers[0]
    tile, across, per_file = 4, 16, 256
    files = -(-count // per_file)
    block = 3 * tile
    names = [[], []]
    for number in range(files):
        units = range(number * per_file, min(count, (number + 1) * per_file))
        rows = -(-len(units) // across)
        for kind, of_kind in enumerate(names):
            pixels = np.zeros((rows * block, across * block, 3), np.uint8)
            for place, unit in enumerate(units):
                top, left = place // across * block, place % across * block
                pixels[top : top + block, left : left + block] = colours(unit)[kind]
            of_kind.append(f"large-{kind}-{number}.webp")
            Image.fromarray(pixels).save(folder / of_kind[-1], lossless=True)
    model = layer.units[0]
    example = model.examples[0]
    units = tuple(
        replace(
            model, index=unit, maximum=float(unit % 977), dead=unit % 50 == 49,
            examples=tuple(replace(example, name=f"image {unit + k}.png") for k in range(9)),
        )
        for unit in range(count)
    )  # fmt: skip
    sprite = replace(
        layer.sprite, patches=tuple(names[0]), projections=tuple(names[1]), tile=tile, side=3, across=across,
        per_file=per_file,
    )  # fmt: skip
    write_index(replace(gallery, layers=(replace(layer, units=units, sprite=sprite),)), folder)
    return folder
