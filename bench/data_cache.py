"""Decoded pictures kept in shared memory.

Median time of an epoch through ``ImageData.batches`` (reading, normalising, stacking; no network) with the
cache that ``ImageData.cached`` makes, filled, divided by the time without, on a folder of JPEG files of
500×375 pixels (quality 90), on patches of photographs and on digits. Below 1 the cache is faster. ``auto`` is
what the measured forecast decides. A picture from the cache is the same bytes.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.clock import interleaved, markdown
from convscope.data import ImageData, forecast_cache, load_data
from convscope.data.photos import CLASSES, photographs

PICTURES = 20
"""JPEG files of each photograph."""
_SIZE = (500, 375)


def table() -> str:
    """Return the ratio for each source and size."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        for name, reference, size in (
            ("JPEG 500×375", folder, 224),
            ("JPEG 500×375", folder, 256),
            ("JPEG 500×375", folder, 64),
            ("photos", "photos", 224),
            ("photos", "photos", 96),
            ("digits", "digits", 32),
        ):
            rows.append((name, str(size), *_row(load_data(reference, size=size, per_class=PICTURES))))
    header = ("pictures", "side", "cached / not", "ms a picture read", "ms a picture copied", "MiB", "auto")
    return markdown(header, rows)


def write_pictures(folder: Path) -> None:
    """Write cuts of the built-in photographs as JPEG files, a subfolder for each."""
    random = np.random.default_rng(0)
    for name, photo in zip(CLASSES, photographs(), strict=True):
        (folder / name).mkdir()
        for number in range(PICTURES):
            height, width = (int(side * random.uniform(0.5, 1)) for side in photo.shape[:2])
            top, left = (
                int(random.integers(whole - cut + 1))
                for whole, cut in zip(photo.shape, (height, width), strict=False)
            )
            cut = Image.fromarray(photo[top : top + height, left : left + width])
            cut.resize(_SIZE).save(folder / name / f"{number}.jpg", quality=90)


def _row(data: ImageData) -> tuple[str, ...]:
    forecast = forecast_cache(data.train.pictures, data.train.indices)
    cached = data.cached(True)
    seconds = interleaved({"cached": lambda: _epoch(cached), "not": lambda: _epoch(data)})
    return (
        f"{seconds['cached'] / seconds['not']:.2f}",
        f"{1000 * forecast.read_seconds:.3f}",
        f"{1000 * forecast.copy_seconds:.3f}",
        f"{forecast.needed_bytes / 2**20:.1f}",
        "kept" if forecast.pays else "not kept",
    )


def _epoch(data: ImageData) -> None:
    for _ in data.batches("train", 32):
        pass
