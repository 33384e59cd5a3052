"""Picture files in every mode become the RGB that people see."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from convscope.data import fit, read_picture

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def save(tmp_path, image, name="p.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    np.testing.assert_array_equal(read_picture(save(tmp_path, Image.fromarray(RGB), f"p.{suffix}")), RGB)


@pytest.mark.parametrize(
    ("suffix", "options"), [("jpg", {"quality": 95}), ("webp", {"quality": 95}), ("gif", {})]
)
def test_lossy_formats_come_back_nearly(tmp_path, suffix, options):
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 64, 3)).copy()
    read = read_picture(save(tmp_path, Image.fromarray(smooth), f"p.{suffix}", **options))
    assert read.shape == smooth.shape
    assert np.abs(read.astype(int) - smooth).mean() < 4


def test_grey_is_the_same_in_all_channels(tmp_path):
    read = read_picture(save(tmp_path, Image.fromarray(GREY)))
    np.testing.assert_array_equal(read, np.repeat(GREY[..., None], 3, 2))


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    deep = (GREY.astype(np.uint16) << 8) | 0x3F
    read = read_picture(save(tmp_path, Image.fromarray(deep)))
    np.testing.assert_array_equal(read[..., 1], GREY)


def test_sixteen_bit_colour_written_by_hand(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = np.array([[[65535, 0, 32768], [256, 257, 65280]]], dtype=">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert read_picture(tmp_path / "deep.png").tolist() == [[[255, 0, 128], [1, 1, 255]]]


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 10, 20, 255)
    read = read_picture(save(tmp_path, Image.fromarray(pixels)))
    assert read[0, 0].tolist() == [200, 10, 20]
    assert read[1, 1].tolist() == [255, 255, 255]


def test_palettes_with_transparency_as_bytes_and_as_index(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    for transparency in (b"\xff\x00", 1):
        read = read_picture(save(tmp_path, image, transparency=transparency))
        assert read.tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["LA", "1", "CMYK", "YCbCr"])
def test_other_modes_have_the_right_colours(tmp_path, mode):
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    image = Image.new("RGB", (16, 16), "white").convert(mode)
    assert read_picture(save(tmp_path, image, f"p.{suffix}")).min() > 250


def test_a_cameras_orientation_is_applied(tmp_path):
    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    read = read_picture(save(tmp_path, image, exif=exif))
    np.testing.assert_array_equal(read, np.rot90(RGB, -1))


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_a_bomb_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("convscope.data.pictures.MOST_PIXELS", 100)
    with pytest.raises(ValueError, match=r"20x12 pixels .*bomb"):
        read_picture(save(tmp_path, Image.fromarray(RGB)))


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "TIFF")
    (tmp_path / "p.png").write_bytes(buffer.getvalue())
    with pytest.raises(OSError, match="cannot identify"):
        read_picture(tmp_path / "p.png")


def test_fit_cuts_the_centre_and_keeps_proportions():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert fit(wide, (10, 10)).min() == 255
    assert fit(wide.transpose(1, 0, 2), (20, 20)).shape == (20, 20, 3)
    assert fit(wide, (5, 40)).shape == (5, 40, 3)
    assert fit(wide, (10, 30), channels=1).shape == (10, 30, 1)
    np.testing.assert_array_equal(fit(RGB, (12, 20)), RGB)
    assert fit(RGB[..., :1], (12, 20), channels=3).shape == (12, 20, 3)
