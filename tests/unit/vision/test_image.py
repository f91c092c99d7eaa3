import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from app.errors import (
    AnimatedImage,
    EmptyImage,
    ImageError,
    TooManyPixels,
    UnreadableImage,
    UnsupportedImage,
)
from app.vision.image import Photo, read_header

LIMIT = 50_000_000


def encoded(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def blocks() -> PIL.Image.Image:
    """Coarse colours, which every codec keeps; no symmetry, so every turn shows."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return PIL.Image.fromarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_each_allowed_format_is_read_as_rgb(blocks: PIL.Image.Image, kind: str) -> None:
    photo = Photo(encoded(blocks, kind), LIMIT)
    pixels, scale = photo.pixels()
    assert photo.header.format == kind
    assert scale == 1
    assert np.abs(pixels.astype(int) - np.asarray(blocks)).mean() < 12


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1"])
def test_other_pixel_modes_become_rgb(blocks: PIL.Image.Image, mode: str) -> None:
    photo = Photo(
        encoded(
            blocks.convert("I").convert(mode) if mode == "I;16" else blocks.convert(mode), "PNG"
        ),
        LIMIT,
    )
    assert photo.pixels()[0].shape == (96, 144, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(blocks: PIL.Image.Image, kind: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(blocks, kind, exif=exif)
    expected = np.asarray(
        PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGB")
    )
    photo = Photo(data, LIMIT)
    pixels, _ = photo.pixels()
    assert photo.size == (pixels.shape[1], pixels.shape[0])
    np.testing.assert_array_equal(pixels, expected)


def test_garbage_in_the_exif_block_is_ignored(blocks: PIL.Image.Image) -> None:
    data = encoded(blocks, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 64)
    assert Photo(data, LIMIT).pixels()[0].shape == (96, 144, 3)


@pytest.mark.parametrize(
    ("asked", "given"),
    [(1.0, 1.0), (0.51, 1.0), (0.5, 0.5), (0.3, 0.5), (0.25, 0.25), (0.01, 0.125)],
)
def test_jpegs_are_decoded_at_the_least_sufficient_scale(
    hopper: bytes, asked: float, given: float
) -> None:
    pixels, scale = Photo(hopper, LIMIT).pixels(asked)
    assert scale == given
    assert pixels.shape[:2] == (600 * given, 512 * given)


def test_what_was_decoded_is_used_again_where_it_suffices(hopper: bytes) -> None:
    photo = Photo(hopper, LIMIT)
    half, _ = photo.pixels(0.5)
    assert photo.pixels(0.2)[0] is half
    assert photo.pixels(1.0)[0] is not half


def test_empty_bytes() -> None:
    with pytest.raises(EmptyImage):
        read_header(b"", LIMIT)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "ICO"])
def test_formats_outside_the_allowlist(blocks: PIL.Image.Image, kind: str) -> None:
    with pytest.raises(UnsupportedImage):
        read_header(encoded(blocks, kind), LIMIT)


@pytest.mark.parametrize("data", [b"test\n", b"<svg/>", b"\0" * 1000])
def test_not_an_image(data: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        read_header(data, LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(blocks: PIL.Image.Image, kind: str) -> None:
    other = PIL.ImageOps.mirror(blocks)
    with pytest.raises(AnimatedImage):
        read_header(encoded(blocks, kind, save_all=True, append_images=[other]), LIMIT)


def test_a_declared_bomb_is_refused_before_anything_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(TooManyPixels, match="50000 x 50000"):
        read_header(png, LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_photo_cut_off_is_refused(blocks: PIL.Image.Image, kind: str, kept: float) -> None:
    data = encoded(blocks.resize((600, 400)), kind)
    with pytest.raises(ImageError):
        Photo(data[: int(len(data) * kept)], LIMIT).pixels()


def test_corrupt_pixels_are_refused(hopper: bytes) -> None:
    with pytest.raises(UnreadableImage):
        Photo(hopper[:20_000], LIMIT).pixels()
