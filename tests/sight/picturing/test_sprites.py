import numpy as np
import pytest
from PIL import Image

from convscope.core.errors import ConvscopeError
from convscope.sight.picturing.sprites import Layout


def test_pictures_lie_where_the_sprite_says(tmp_path):
    """As ``Sprite`` documents it, with every tile of its own grey."""
    layout = Layout.of(num_units=260, top=4, extent=30)
    assert (layout.tile, layout.side, layout.across, layout.per_file, layout.num_files) == (30, 2, 16, 256, 2)
    for file, units in ((0, range(256)), (1, range(256, 260))):
        assert layout.units_in(file) == units
        tiles = [
            (u, k, np.full((30, 30, 3), 40 * (u % 5) + 10 * k, np.uint8)) for u in units for k in range(4)
        ]
        layout.save(file, tiles, tmp_path / "sheet.webp")
        pixels = np.asarray(Image.open(tmp_path / "sheet.webp").convert("RGB")).astype(int)
        assert pixels.shape == ((16 if file == 0 else 1) * 60, 16 * 60, 3)
        for unit in units:
            v = unit % layout.per_file
            left, top = (v % layout.across) * 60, (v // layout.across) * 60
            for k in range(4):
                x, y = left + (k % 2) * 30, top + (k // 2) * 30
                assert abs(pixels[y + 8 : y + 22, x + 8 : x + 22] - (40 * (unit % 5) + 10 * k)).max() <= 3


def test_what_has_no_picture_is_grey(tmp_path):
    Layout.of(2, 1, 30).save(0, [(1, 0, np.full((30, 30, 3), 255, np.uint8))], tmp_path / "sheet.webp")
    pixels = np.asarray(Image.open(tmp_path / "sheet.webp").convert("RGB")).astype(int)
    assert abs(pixels[4:26, 4:26] - 128).max() <= 3
    assert pixels[4:26, 34:56].min() >= 250


@pytest.mark.parametrize("top", [9, 400, 20_000])
def test_files_stay_within_what_a_picture_may_be(top):
    layout = Layout.of(1000, top, 99)
    assert layout.across * layout.side * layout.tile <= 16383
    assert -(-layout.per_file // layout.across) * layout.side * layout.tile <= 16383
    assert [unit for file in range(layout.num_files) for unit in layout.units_in(file)] == list(range(1000))


def test_too_many_pictures_of_a_unit_are_refused():
    with pytest.raises(ConvscopeError, match="top=200000"):
        Layout.of(10, 200_000, 99)
