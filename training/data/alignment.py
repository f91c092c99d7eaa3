"""The face a labelled photo shows, found and cut out by the service's own code."""

import cv2
import numpy as np

from app.errors import NoFace
from app.inference.detector import Detection, Detector
from app.inference.session import open_session
from app.models.spec import SHIPPED_DETECTOR, DetectorSpec
from app.vision.geometry import ARCFACE_TEMPLATE, FACE_SIZE, align, cut
from app.vision.image import Photo

MARGIN = 8

_MAX_PIXELS = 100_000_000


class Aligner:
    """May be called by several threads at a time; each call keeps one core busy."""

    def __init__(self) -> None:
        session, spec = open_session(SHIPPED_DETECTOR, DetectorSpec, "cpu", threads=1)
        self._detector = Detector(session, spec)
        # What the faces depend on, besides the photos.
        self.version = f"{spec.weights_sha256[:16]}-{MARGIN}"

    def __call__(self, data: bytes) -> bytes:
        """Make an aligned face with a margin, as PNG, of a photo.

        PNG, because its centre has to be what the service would feed its embedder with, to
        the byte.

        Raises:
            ImageError: the photo cannot be read.
            NoFace: there is none in it.
        """
        photo = Photo(data, _MAX_PIXELS)
        faces = self._detector.detect(photo)
        if not faces:
            raise NoFace("No face was found in the photo.")
        landmarks = main_face(faces, photo.size).landmarks
        square, _ = cut(photo, landmarks, ARCFACE_TEMPLATE + MARGIN, FACE_SIZE + 2 * MARGIN)
        # The larger square is averaged and rounded a little differently.
        square[MARGIN:-MARGIN, MARGIN:-MARGIN] = align(photo, landmarks)
        return cv2.imencode(".png", square[..., ::-1])[1].tobytes()


def main_face(faces: list[Detection], size: tuple[int, int]) -> Detection:
    """The one that a photo is named after: large, and near the centre.

    Its area less twice the squared distance of its centre from the photo's, as in FaceNet's
    `align_dataset_mtcnn.py`: people in the background lose to the person portrayed.

    Args:
        faces: at least one.
        size: width and height of the photo.
    """

    def weight(face: Detection) -> float:
        offset = face.box[:2] + face.box[2:] / 2 - np.array(size) / 2
        return float(face.box[2] * face.box[3] - 2 * (offset @ offset))

    return max(faces, key=weight)
