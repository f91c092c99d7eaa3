"""What can happen to a face between the person and the aligned crop."""

from typing import Annotated

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.vision.geometry import FACE_SIZE
from app.vision.image import Image
from training.data.face import centre_crop

Probability = Annotated[float, Field(ge=0, le=1)]

_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class Augmentation(BaseModel):
    """Random changes to a face, each made with a probability of its own; 0 switches it off.

    They come in the order in which light, lens, sensor and file meet a face.

    Attributes:
        jitter: the crop is shifted, turned and scaled as by imprecise landmarks, with standard
            deviations of 1.5 pixels, 2 degrees and 2.5 %.
        flip: left becomes right.
        occlusion: a rectangle of 2 to 20 % of the face takes one colour
            (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020).
        colour: brightness by up to 12 %, contrast and saturation by up to 30 %, white
            balance by up to 10 %.
        grey: luminance only.
        blur: Gaussian, of a standard deviation of 0.5 to 2 pixels.
        low_resolution: as a face of 20 to 100 % of the size, enlarged
            (Kim, Jain and Liu, "AdaFace", CVPR 2022).
        jpeg: compressed with a quality of 20 to 90.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    jitter: Probability = 0.0
    flip: Probability = 0.5
    occlusion: Probability = 0.0
    colour: Probability = 0.0
    grey: Probability = 0.0
    blur: Probability = 0.0
    low_resolution: Probability = 0.0
    jpeg: Probability = 0.0

    def __call__(self, face: Image, margin: int, rng: np.random.Generator) -> Image:
        """Make a (112, 112, 3) uint8 RGB face of one with a margin, which stays as it is."""
        jitter, flip, occlusion, colour, grey, blur, low_resolution, jpeg = rng.random(8)
        crop = _cut_askew(face, rng) if jitter < self.jitter else centre_crop(face, margin).copy()
        if flip < self.flip:
            crop = _flip(crop)
        if occlusion < self.occlusion:
            crop = _occlude(crop, rng)
        if colour < self.colour:
            crop = _change_colour(crop, rng)
        if grey < self.grey:
            crop = _drop_colour(crop)
        if blur < self.blur:
            crop = _blur(crop, rng)
        if low_resolution < self.low_resolution:
            crop = _lower_resolution(crop, rng)
        if jpeg < self.jpeg:
            crop = _compress(crop, rng)
        return crop


def _cut_askew(face: Image, rng: np.random.Generator) -> Image:
    middle = (face.shape[0] - 1) / 2
    turn, scale, *shift = rng.normal([0, 1, 0, 0], [2, 0.025, 1.5, 1.5])
    matrix = cv2.getRotationMatrix2D((middle, middle), turn, scale)
    matrix[:, 2] += np.array(shift) + (FACE_SIZE - 1) / 2 - middle
    crop = cv2.warpAffine(
        face,
        matrix,
        (FACE_SIZE, FACE_SIZE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(crop, np.uint8)


def _flip(crop: Image) -> Image:
    return np.asarray(cv2.flip(crop, 1), np.uint8)


def _occlude(crop: Image, rng: np.random.Generator) -> Image:
    area = rng.uniform(0.02, 0.2) * FACE_SIZE**2
    ratio = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
    height = min(FACE_SIZE, round(np.sqrt(area * ratio)))
    width = min(FACE_SIZE, round(np.sqrt(area / ratio)))
    top, left = rng.integers(0, [FACE_SIZE - height, FACE_SIZE - width], endpoint=True)
    crop[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return crop


def _change_colour(crop: Image, rng: np.random.Generator) -> Image:
    """All four changes are linear: one matrix, rounded and clipped once."""
    contrast, saturation = rng.uniform(0.7, 1.3, 2)
    brightness = rng.uniform(-30, 30)
    balance = rng.uniform(0.9, 1.1, 3)
    matrix = np.empty((3, 4))
    matrix[:, :3] = saturation * np.eye(3) + (1 - saturation) * _LUMINANCE
    matrix[:, :3] *= contrast * balance[:, None]
    matrix[:, 3] = brightness + 127.5 * (1 - contrast)
    return np.asarray(cv2.transform(crop, matrix), np.uint8)


def _drop_colour(crop: Image) -> Image:
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _blur(crop: Image, rng: np.random.Generator) -> Image:
    return np.asarray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.5, 2.0)), np.uint8)


def _lower_resolution(crop: Image, rng: np.random.Generator) -> Image:
    side = round(FACE_SIZE * rng.uniform(0.2, 1.0))
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    # As alignment enlarges a small face.
    enlarged = cv2.resize(small, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, np.uint8)


def _compress(crop: Image, rng: np.random.Generator) -> Image:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 91))]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), quality)[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)
