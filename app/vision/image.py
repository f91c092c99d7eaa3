"""From the bytes of a photo to its pixels, trusting neither.

The header is read first, by Pillow, for an allowlist of formats; pixels are decoded, by
OpenCV, only when format and size are fine, and no larger than somebody needs them.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import UnidentifiedImageError

from app.errors import (
    AnimatedImage,
    EmptyImage,
    TooManyPixels,
    UnreadableImage,
    UnsupportedImage,
)

Image = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_EXIF_ORIENTATION = 0x0112
_EXIF_BLOCK_LIMIT = 1 << 20
# Of these only the size counts, beside a flag that asks for colour; the ones for colour mean BGR.
_REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

# The limit is ours and comes before any decoding; Pillow's is a warning at twice the size.
PIL.Image.MAX_IMAGE_PIXELS = None
# A broken photo is the client's business: it is answered, not logged by the decoder.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a photo declare.

    Attributes:
        format: one of `FORMATS`.
        width, height: pixels as stored, before `orientation` is applied.
        orientation: EXIF orientation, 1 (upright) to 8.
    """

    format: str
    width: int
    height: int
    orientation: int


def read_header(data: bytes, max_pixels: int) -> Header:
    """Check format and size without decoding a pixel.

    Raises:
        EmptyImage: no bytes at all.
        UnsupportedImage: not one of `FORMATS`.
        AnimatedImage: a PNG or WebP of several frames.
        TooManyPixels: the header declares more than `max_pixels`.
        UnreadableImage: the header itself is broken.
    """
    if not data:
        raise EmptyImage("The image has no bytes; send the file's content.")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            name = image.format or ""
            width, height = image.size
            frames = getattr(image, "n_frames", 1) if name in {"PNG", "WEBP"} else 1
            exif_block = image.info.get("exif", b"")
    except UnidentifiedImageError:
        raise UnsupportedImage(
            "The bytes are not a JPEG, PNG, WebP or BMP image; convert the photo to one of these."
        ) from None
    except Exception as error:  # Hostile headers make Pillow raise whatever they hit.
        raise UnreadableImage(f"The image's header cannot be read: {error}") from None
    if frames > 1:
        raise AnimatedImage(f"The image has {frames} frames; send one photo.")
    if width * height > max_pixels:
        raise TooManyPixels(
            f"The image declares {width} x {height} pixels, more than the {max_pixels:,} allowed; "
            "scale it down before sending."
        )
    # Phones write two pictures into one JPEG (MPO); the first is the photo.
    return Header("JPEG" if name == "MPO" else name, width, height, _orientation(exif_block))


def _orientation(exif_block: bytes) -> int:
    if not exif_block or len(exif_block) > _EXIF_BLOCK_LIMIT:
        return 1
    exif = PIL.Image.Exif()
    try:
        exif.load(exif_block)
        value = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # A photo with garbage in its EXIF block is still a photo.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


class Photo:
    """One image, decoded when asked for and at the scale asked for.

    A 12-megapixel JPEG takes five times longer in full than at a quarter, and the detector
    would shrink it anyway.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        """
        Raises:
            ImageError: as in `read_header`.
        """
        self.header = read_header(data, max_pixels)
        self._data = data
        self._decoded: dict[int, Image] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the upright photo."""
        width, height = self.header.width, self.header.height
        return (height, width) if self.header.orientation >= 5 else (width, height)

    def pixels(self, scale: float = 1.0) -> tuple[Image, float]:
        """The upright photo at `scale` or the next larger one that is cheap to decode.

        Args:
            scale: the least acceptable size as a fraction of the full one, above 0.

        Returns:
            (h, w, 3) uint8 RGB, and its size as a fraction of the full one: 1, or for
            JPEGs also 1/2, 1/4 and 1/8. What was decoded before is used again if it will do.

        Raises:
            UnreadableImage: the pixels are corrupt or cut off.
        """
        for reduction, image in self._decoded.items():
            if 1 / reduction >= scale:
                return image, 1 / reduction
        reduction = 1
        if self.header.format == "JPEG":
            reduction = next((r for r in (8, 4, 2) if 1 / r >= scale), 1)
        self._decoded[reduction] = self._decode(reduction)
        return self._decoded[reduction], 1 / reduction

    def _decode(self, reduction: int) -> Image:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED.get(reduction, 0)
        try:
            image = cv2.imdecode(np.frombuffer(self._data, np.uint8), flags)
        except cv2.error:
            image = None
        if image is None:
            raise UnreadableImage(
                f"The {self.header.format} image is corrupt or cut off; send the whole file."
            )
        return np.ascontiguousarray(_upright(image, self.header.orientation), np.uint8)


def _upright(image: npt.NDArray[np.generic], orientation: int) -> npt.NDArray[np.generic]:
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    if orientation in {2, 3, 6, 7}:
        image = image[:, ::-1]
    return image
