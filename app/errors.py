"""Everything that can go wrong, as one tree.

    FaceIdError
    ├── RequestError                    the caller can mend it
    │   ├── Unauthenticated             401 unauthenticated
    │   ├── Forbidden                   403 forbidden
    │   ├── TooManyRequests             429 too_many_requests
    │   ├── MalformedRequest            400 malformed_request
    │   ├── InvalidRequest              422 invalid_request
    │   ├── UnsupportedMediaType        415 unsupported_media_type
    │   ├── BodyTooLarge                413 body_too_large
    │   ├── BodyTooSlow                 408 body_too_slow
    │   ├── ImageError
    │   │   ├── EmptyImage              422 empty_image
    │   │   ├── UnsupportedImage        415 unsupported_image
    │   │   ├── AnimatedImage           415 animated_image
    │   │   ├── TooManyPixels           413 too_many_pixels
    │   │   └── UnreadableImage         422 unreadable_image
    │   ├── FaceError
    │   │   ├── NoFace                  422 no_face
    │   │   ├── MultipleFaces           422 multiple_faces
    │   │   ├── CrowdedImage            422 crowded_image
    │   │   ├── FaceTooSmall            422 face_too_small
    │   │   ├── InconsistentPerson      422 inconsistent_person
    │   │   └── PoorFace                good enough to be searched for, not to be enrolled
    │   │       ├── TooSmall            422 too_small
    │   │       ├── Blurred             422 blurred
    │   │       ├── TooDark             422 too_dark
    │   │       ├── TooBright           422 too_bright
    │   │       ├── ExtremePose         422 extreme_pose
    │   │       └── LowDetectionScore   422 low_detection_score
    │   ├── DuplicatePerson             409 duplicate_person
    │   ├── PersonExpired               409 person_expired
    │   ├── NoFaceEnrolled              422 no_face_enrolled
    │   ├── TooManyFaces                422 too_many_faces
    │   ├── GalleryFull                 422 gallery_full
    │   ├── TooManyGalleries            422 too_many_galleries
    │   ├── MetadataTooLarge            422 metadata_too_large
    │   ├── UnsupportedTarget           422 unsupported_target
    │   ├── UnusableModel               422 unusable_model
    │   ├── ModelConflict               409 model_conflict
    │   ├── NotCarriedOver              409 not_carried_over
    │   ├── PersonsWouldBeLost          409 persons_would_be_lost
    │   ├── NotFound                    404 not_found
    │   │   ├── PersonNotFound          404 person_not_found
    │   │   └── FaceNotFound            404 face_not_found
    │   ├── MethodNotAllowed            405 method_not_allowed
    │   └── ClientDisconnected          499 client_disconnected (answered to nobody)
    ├── Unavailable                     the caller can try again
    │   ├── QueueFull                   503 queue_full
    │   ├── NotReady                    503 not_ready
    │   ├── StoreUnavailable            503 store_unavailable
    │   └── AuditUnavailable            503 audit_unavailable
    ├── InferenceFailed                 500 inference_failed
    ├── InvalidEmbedding                500 invalid_embedding
    ├── TransferError                   the operator can mend it; nobody is answered
    │   ├── InvalidBackup
    │   ├── DestinationOccupied
    │   └── TransferIncomplete
    └── StartupError                    the operator can mend it; the service does not start
        ├── InvalidSettings
        ├── InvalidModel
        ├── DeviceUnavailable
        ├── InvalidKeys
        ├── AuditUnusable
        ├── StoreUnusable
        ├── StoreLocked
        └── StoreMismatch

`code` is part of the public contract and never changes; `detail` says what was
wrong and what to do, for a person to read.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class FaceIdError(Exception):
    """Base of every error this project raises on purpose."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra: Mapping[str, Any] = extra


class RequestError(FaceIdError):
    """The request cannot be served as it is."""

    status = 400


class Unauthenticated(RequestError):
    status, code, title = 401, "unauthenticated", "Not authenticated"


class Forbidden(RequestError):
    status, code, title = 403, "forbidden", "Not allowed"


class TooManyRequests(RequestError):
    """
    Attributes:
        retry_after: whole seconds after which a request will be taken.
    """

    status, code, title = 429, "too_many_requests", "Too many requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class MalformedRequest(RequestError):
    """What came is not HTTP."""

    status, code, title = 400, "malformed_request", "Malformed request"


class InvalidRequest(RequestError):
    status, code, title = 422, "invalid_request", "Invalid request"


class UnsupportedMediaType(RequestError):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class BodyTooLarge(RequestError):
    status, code, title = 413, "body_too_large", "Request body too large"


class BodyTooSlow(RequestError):
    status, code, title = 408, "body_too_slow", "Request body came too slowly"


class ImageError(RequestError):
    """The image itself cannot be used."""


class EmptyImage(ImageError):
    status, code, title = 422, "empty_image", "Empty image"


class UnsupportedImage(ImageError):
    status, code, title = 415, "unsupported_image", "Unsupported image format"


class AnimatedImage(ImageError):
    status, code, title = 415, "animated_image", "Animated image"


class TooManyPixels(ImageError):
    status, code, title = 413, "too_many_pixels", "Too many pixels"


class UnreadableImage(ImageError):
    status, code, title = 422, "unreadable_image", "Unreadable image"


class FaceError(RequestError):
    """The image is fine; the faces in it are not what the call needs."""


class NoFace(FaceError):
    status, code, title = 422, "no_face", "No face found"


class MultipleFaces(FaceError):
    status, code, title = 422, "multiple_faces", "More than one face"


class CrowdedImage(FaceError):
    """More faces than one photo may keep the machine busy with."""

    status, code, title = 422, "crowded_image", "Too many faces in one image"


class FaceTooSmall(FaceError):
    """Too small to be embedded at all, for whatever purpose."""

    status, code, title = 422, "face_too_small", "Face too small"


class PoorFace(FaceError):
    """The face can be searched for, but would make a poor reference for its person."""

    status = 422


class TooSmall(PoorFace):
    code, title = "too_small", "Face too small to enrol"


class Blurred(PoorFace):
    code, title = "blurred", "Face blurred"


class TooDark(PoorFace):
    code, title = "too_dark", "Face too dark"


class TooBright(PoorFace):
    code, title = "too_bright", "Face too bright"


class ExtremePose(PoorFace):
    code, title = "extreme_pose", "Face turned away"


class LowDetectionScore(PoorFace):
    code, title = "low_detection_score", "Face hardly recognisable as one"


class InconsistentPerson(FaceError):
    """The face does not look like the others of the person it is enrolled for."""

    status, code, title = 422, "inconsistent_person", "Not the same person"


class DuplicatePerson(RequestError):
    """The new person looks like somebody enrolled; `candidates` says whom."""

    status, code, title = 409, "duplicate_person", "Person enrolled already"


class PersonExpired(RequestError):
    """The person's time is over; they are found no more and will be erased."""

    status, code, title = 409, "person_expired", "Person expired"


class NoFaceEnrolled(RequestError):
    """Every image of an enrolment was rejected; `rejected` says why, one by one."""

    status, code, title = 422, "no_face_enrolled", "No face enrolled"


class TooManyFaces(RequestError):
    status, code, title = 422, "too_many_faces", "Too many faces"


class GalleryFull(RequestError):
    status, code, title = 422, "gallery_full", "Gallery full"


class TooManyGalleries(RequestError):
    status, code, title = 422, "too_many_galleries", "Too many galleries"


class MetadataTooLarge(RequestError):
    status, code, title = 422, "metadata_too_large", "Metadata too large"


class UnsupportedTarget(RequestError):
    """The calibration says nothing about the error rate asked for."""

    status, code, title = 422, "unsupported_target", "Unsupported target error rate"


class UnusableModel(RequestError):
    """The file is no embedder that could take over."""

    status, code, title = 422, "unusable_model", "Model cannot be used"


class ModelConflict(RequestError):
    """There is another model already, or none."""

    status, code, title = 409, "model_conflict", "Not with these models"


class NotCarriedOver(RequestError):
    """The other model's store does not hold all of the active one's faces yet."""

    status, code, title = 409, "not_carried_over", "Not carried over yet"


class PersonsWouldBeLost(RequestError):
    """Of some persons the other model has no face; `persons` says of whom."""

    status, code, title = 409, "persons_would_be_lost", "Persons would be lost"


class NotFound(RequestError):
    status, code, title = 404, "not_found", "Not found"


class PersonNotFound(NotFound):
    code, title = "person_not_found", "Person not found"

    def __init__(self, gallery: str, person_id: str) -> None:
        super().__init__(f"No person {person_id!r} in gallery {gallery!r}.")


class FaceNotFound(NotFound):
    code, title = "face_not_found", "Face not found"

    def __init__(self, gallery: str, person_id: str, face_id: str) -> None:
        super().__init__(f"Person {person_id!r} of gallery {gallery!r} has no face {face_id!r}.")


class MethodNotAllowed(RequestError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class ClientDisconnected(RequestError):
    """The client hung up while its request was read or waited in a queue."""

    status, code, title = 499, "client_disconnected", "Client disconnected"


class Unavailable(FaceIdError):
    """Not now; `retry_after` seconds from now it may work."""

    status = 503
    retry_after: ClassVar[int] = 1


class QueueFull(Unavailable):
    code, title = "queue_full", "Too many requests in progress"


class NotReady(Unavailable):
    code, title = "not_ready", "Not ready"


class StoreUnavailable(Unavailable):
    code, title = "store_unavailable", "Store unavailable"
    retry_after = 5


class AuditUnavailable(Unavailable):
    """What was done cannot be written down, so nothing more is changed."""

    code, title = "audit_unavailable", "Audit log unavailable"
    retry_after = 5


class InferenceFailed(FaceIdError):
    status, code, title = 500, "inference_failed", "Inference failed"


class InvalidEmbedding(FaceIdError):
    """An embedding that is not finite, of unit length and of the model's dimension."""

    status, code, title = 500, "invalid_embedding", "Invalid embedding"


class TransferError(FaceIdError):
    """Persons are not moved from one store to another, or from a backup."""


class InvalidBackup(TransferError):
    code, title = "invalid_backup", "Not a whole backup"


class DestinationOccupied(TransferError):
    """The destination holds what the source does not."""

    code, title = "destination_occupied", "Destination holds something else"


class TransferIncomplete(TransferError):
    """Source and destination differ after all was written."""

    code, title = "transfer_incomplete", "Source and destination differ"


class StartupError(FaceIdError):
    """The service refuses to start."""


class InvalidSettings(StartupError):
    code, title = "invalid_settings", "Invalid settings"


class InvalidModel(StartupError):
    code, title = "invalid_model", "Invalid model file"


class DeviceUnavailable(StartupError):
    code, title = "device_unavailable", "Device unavailable"


class InvalidKeys(StartupError):
    code, title = "invalid_keys", "API keys cannot be read"


class AuditUnusable(StartupError):
    code, title = "audit_unusable", "Audit log cannot be written"


class StoreUnusable(StartupError):
    """The embedded store's folder cannot be read or written, or is damaged."""

    code, title = "store_unusable", "Store cannot be opened"


class StoreLocked(StartupError):
    code, title = "store_locked", "Store in use"


class StoreMismatch(StartupError):
    """The stored faces are of another model than the one now configured, or of another layout."""

    code, title = "store_mismatch", "Store belongs to another model or version"
