"""YuNet, looked through three times: wide, close, and at every face again."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.errors import CrowdedImage, InferenceFailed
from app.models.spec import DetectorSpec
from app.vision.geometry import ARCFACE_TEMPLATE, FACE_SIZE, cut
from app.vision.image import Image, Photo

FloatArray = npt.NDArray[np.float32]

# Long side of the photo, in pixels, when looking for faces of every size. Smaller photos
# are looked at as they are.
WIDE = 640
# YuNet is blind to faces that fill a 640-pixel frame; at this size it sees nothing else.
CLOSE = 160
# Side of the square in which each face is looked at again, upright and in a known size.
REFINED = 160

_SCORE = 0.65
_OVERLAP = 0.3
_STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class Detection:
    """One face, in pixels of the upright photo at full size.

    Attributes:
        box: (4,) float32: left, top, width, height; may reach beyond the photo's border.
        landmarks: (5, 2) float32: eyes, nose tip, mouth corners, left to right as seen.
        score: 0 to 1.
    """

    box: FloatArray
    landmarks: FloatArray
    score: float


def wide_scale(size: tuple[int, int]) -> float:
    """The scale at which a photo of this width and height is first looked at, at most 1."""
    return min(1.0, WIDE / max(size))


class Detector:
    def __init__(self, session: ort.InferenceSession, spec: DetectorSpec) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._stride = spec.stride

    def detect(self, photo: Photo, most: int | None = None) -> list[Detection]:
        """Find all faces, largest first; their landmarks can be aligned.

        Args:
            most: faces that a photo may show; None: any number.

        Raises:
            CrowdedImage: there are more.
            UnreadableImage: the pixels are corrupt.
            InferenceFailed: ONNX Runtime failed.
        """
        scale = wide_scale(photo.size)
        pixels, decoded = photo.pixels(scale)
        scales = [scale]
        if max(photo.size) > 2 * CLOSE:
            scales.append(CLOSE / max(photo.size))
        looks = [self._look(pixels, scale / decoded) for scale in scales]
        score, box, landmarks = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        kept = cv2.dnn.NMSBoxes(box.tolist(), score.tolist(), 0.0, _OVERLAP) if len(score) else []
        if most is not None and len(kept) > most:
            raise CrowdedImage(
                f"{len(kept)} faces were found, and {most} may be in one image; send it in parts."
            )
        faces = []
        for i in sorted(kept, key=lambda i: -float(box[i, 2] * box[i, 3])):
            try:
                points = self._refine(photo, landmarks[i] / decoded)
            except ValueError:  # Five points in one place are no face.
                continue
            faces.append(Detection(box[i] / decoded, points, float(score[i])))
        return faces

    def _look(self, pixels: Image, scale: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Faces at one scale: scores (k,), boxes (k, 4), landmarks (k, 5, 2) in `pixels`."""
        height, width = pixels.shape[:2]
        if scale < 1.0:
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
            small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        else:
            small = pixels
        canvas = np.zeros(
            (1, _round_up(height, self._stride), _round_up(width, self._stride), 3), np.uint8
        )
        canvas[0, :height, :width] = small
        score, box, landmarks = self._run(canvas)[0]
        ratio = np.array([pixels.shape[1] / width, pixels.shape[0] / height], np.float32)
        return score, box * np.tile(ratio, 2), landmarks * ratio

    def _refine(self, photo: Photo, landmarks: FloatArray) -> FloatArray:
        """The five points again, from the face turned upright and brought to one size.

        How well a face is cut out decides how well it is recognised, and the points of the
        first look depend on the size the face happened to have. The mirrored face is looked
        at too: what is wrong to the left in one is wrong to the right in the other.
        """
        target = ARCFACE_TEMPLATE + np.float32((REFINED - FACE_SIZE) / 2)
        square, matrix = cut(photo, landmarks, target, REFINED)
        seen, mirrored = self._run(np.stack([square, square[:, ::-1]]))
        points = [
            found[score.argmax()]
            for score, _, found in (seen, (mirrored[0], mirrored[1], _mirror(mirrored[2])))
            if len(score)
        ]
        # A neighbour's face may be the clearer one in the square.
        points = [p for p in points if float(np.abs(p - target).max()) < FACE_SIZE / 8]
        if not points:
            return landmarks
        mean = np.mean(points, axis=0)
        return np.asarray((mean - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T, np.float32)

    def _run(self, images: Image) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        """Decode the grids of (n, h, w, 3) uint8: scores, boxes and points in pixels."""
        try:
            scores, boxes, points = self._session.run(
                ["score", "box", "landmarks"], {self._input: images}
            )
        except Exception as error:  # The exceptions of ONNX Runtime share no public base class.
            raise InferenceFailed(f"The detector failed: {error}") from None
        cells, strides = _grid(*images.shape[1:3])
        results = []
        for score, box, point in zip(scores, boxes, points, strict=True):
            found = np.flatnonzero(score > _SCORE)
            cell, stride = cells[found], strides[found, None]
            centre = (cell + box[found, :2]) * stride
            size = np.exp(box[found, 2:]) * stride
            landmarks = (point[found].reshape(-1, 5, 2) + cell[:, None]) * stride[:, None]
            results.append(
                (score[found], np.concatenate([centre - size / 2, size], axis=1), landmarks)
            )
        return results


def _mirror(landmarks: FloatArray) -> FloatArray:
    """Points (k, 5, 2) found in a mirrored square, as the square itself shows them."""
    mirrored = landmarks[:, [1, 0, 2, 4, 3]]
    mirrored[..., 0] = REFINED - 1 - mirrored[..., 0]
    return mirrored


@lru_cache(maxsize=64)
def _grid(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Column and row of every cell (k, 2), and its stride (k,), as the detector orders them."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full(rows.size, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
