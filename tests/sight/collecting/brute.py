"""What a scan should find, from all maps at once: explicit loops over float64 numbers."""

import math

import numpy as np


def strongest(maps, top):
    """Per unit: (value, image, y, x) of its strongest images, by sorting tuples."""
    result = []
    for unit in range(maps.shape[1]):
        entries = []
        for image in range(maps.shape[0]):
            values = np.asarray(maps[image, unit].double())
            value, y, x = max(
                (value, -y, -x) for y, row in enumerate(values.tolist()) for x, value in enumerate(row)
            )
            entries.append((-value, image, -y, -x))
        result.append([(-value, image, y, x) for value, image, y, x in sorted(entries)[:top]])
    return result


def statistics(maps):
    """Per unit: minimum, maximum, mean, deviation, images and positions in which it is positive."""
    result = []
    for unit in range(maps.shape[1]):
        images = [maps[image, unit].double().flatten().tolist() for image in range(maps.shape[0])]
        values = [value for image in images for value in image]
        mean = math.fsum(values) / len(values)
        result.append(
            {
                "minimum": min(values),
                "maximum": max(values),
                "mean": mean,
                "std": math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)),
                "num_active_images": sum(any(value > 0 for value in image) for image in images),
                "num_active_positions": sum(value > 0 for value in values),
            }
        )
    return result


def entries(tally):
    """A tally's lists in the form of :func:`strongest`."""
    return [
        [(v, i, *divmod(p, tally.width)) for v, i, p in zip(*row) if i >= 0]
        for row in zip(tally.values.tolist(), tally.images.tolist(), tally.places.tolist())
    ]


def bits(tally):
    """Everything a tally knows, as bytes; nothing about images that it hasn't seen."""
    seen = ~tally.profile.peaks.isnan().all(0)
    tensors = [
        tally.values, tally.images, tally.places, tally.maximum, tally.num_active_images,
        tally.profile.images[seen], tally.profile.peaks[:, seen],
    ]  # fmt: skip
    rest = [tally.num_images, tally.size]
    if tally.statistics is not None:
        statistics = tally.statistics
        tensors += [statistics.minimum, statistics.num_active_positions, statistics.mean, statistics.std]
        for node in sorted(statistics.sums.nodes):
            rest.append(node)
            tensors.append(statistics.sums.nodes[node])
        rest.append(statistics.num_values)
    return repr(rest).encode() + b"".join(tensor.numpy().tobytes() for tensor in tensors)
