"""Everything an operator can set, with the environment variables' names in the field names.

`FACEID_STORE__PATH=/data` sets `store.path`, and so on. Nothing here is read at import time.
"""

import base64
import binascii
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.decision.gate import Gate
from app.errors import InvalidSettings
from app.models.spec import SHIPPED_DETECTOR, SHIPPED_EMBEDDER

Concern = Literal["reject", "warn", "allow"]

_SHA256 = r"^[0-9a-fA-F]{64}$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Section):
    detector: Path = Field(SHIPPED_DETECTOR, description="Detector file.")
    embedder: Path = Field(SHIPPED_EMBEDDER, description="Embedder file.")
    detector_sha256: str | None = Field(
        None, pattern=_SHA256, description="Of the detector file; with another it does not start."
    )
    embedder_sha256: str | None = Field(
        None, pattern=_SHA256, description="Of the embedder file; with another it does not start."
    )
    device: Literal["auto", "cuda", "cpu"] = Field(
        "auto",
        description="Where the embedder runs. `auto` takes CUDA where it works; `cuda` refuses to "
        "start where it does not.",
    )
    cores: int = Field(0, ge=0, le=1024, description="CPU cores for inference; 0: all there are.")
    max_batch: int = Field(32, ge=1, le=256, description="Faces in one inference on CUDA.")
    max_wait_ms: float = Field(
        1.0, ge=0, le=1000, description="How long a face waits for others on an idle CUDA device."
    )


class StoreSettings(_Section):
    path: Path = Field(Path("data"), description="Folder of the embedded store.")
    url: str | None = Field(None, description="Qdrant server; unset: the embedded store.")
    api_key: SecretStr | None = Field(None, description="Key of the Qdrant server.")
    timeout_s: int = Field(
        5, ge=1, le=300, description="Limit of one call to the server, with what is repeated of it."
    )
    replication_factor: int = Field(
        1, ge=1, le=32, description="Copies of every person, when the server's collection is made."
    )
    shard_number: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Shards of the collection when it is made; unset: one for each node.",
    )
    hnsw_m: int = Field(
        16,
        ge=0,
        le=128,
        description="Server: links of each person in the graph of its gallery; 0: no graph, "
        "searches are scans.",
    )
    hnsw_min_ef: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Server: candidates that a search of a graph keeps, at least.",
    )
    hnsw_persons_per_ef: int = Field(
        400,
        ge=1,
        description="Server: one candidate for so many persons of the gallery in a shard, once "
        "that is more than HNSW_MIN_EF.",
    )
    quantization: Literal["ram", "disk", "off"] = Field(
        "ram",
        description="Server: where the 4-bit codes are that searches go over; off: they go over "
        "the templates themselves.",
    )
    oversampling: float = Field(
        4.0,
        ge=1,
        le=100,
        description="Server: candidates found by their codes that are scored exactly, for each "
        "person wanted; 64 in all at least.",
    )
    durable: bool = Field(
        True,
        description="Embedded store: an acknowledged write survives a power cut (false: it "
        "survives only a crash of the process, and writes are some milliseconds faster).",
    )
    keep_crops: bool = Field(
        False,
        description="Keep the aligned crop of each enrolled face, encrypted, so that another "
        "embedder can take over without new photos.",
    )
    crops_key: SecretStr | None = Field(
        None, description="Key of the crops: 32 bytes in base64 (`openssl rand -base64 32`)."
    )

    @model_validator(mode="after")
    def _crops_have_a_key(self) -> Self:
        if self.keep_crops and self.crops_key is None:
            raise ValueError(
                "KEEP_CROPS needs CROPS_KEY; `openssl rand -base64 32` makes one. Keep it: without "
                "it the crops are of no use"
            )
        if self.crops_key is not None:
            if not self.keep_crops:
                raise ValueError("CROPS_KEY is of no use without KEEP_CROPS=true")
            self.crops_key_bytes()
        return self

    def crops_key_bytes(self) -> bytes | None:
        """The key, 32 bytes; None where no crops are kept."""
        if self.crops_key is None:
            return None
        try:
            key = base64.b64decode(self.crops_key.get_secret_value(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != 32:
            raise ValueError("CROPS_KEY must be 32 bytes in base64, as `openssl rand -base64 32`")
        return key


class DecisionSettings(_Section):
    target_fpir: float = Field(
        0.01, gt=0, lt=1, description="Share of strangers that may be called somebody."
    )
    target_fmr: float = Field(
        1e-4, gt=0, lt=1, description="Share of pairs of strangers that may be verified."
    )


class EnrolmentSettings(_Section):
    gate: Gate = Field(
        "warn",
        description="What becomes of poor photos: enrolled, enrolled with a warning, or rejected.",
    )
    min_eye_distance_px: float = Field(
        14.0, ge=1, description="Least pixels between the eyes that the gate is content with."
    )
    on_inconsistent: Concern = Field(
        "reject", description="What becomes of a face that does not look like its person's others."
    )
    on_duplicate: Concern = Field(
        "reject", description="What becomes of a new person who looks like somebody enrolled."
    )


class AuthSettings(_Section):
    disabled: bool = Field(
        False, description="No keys at all; possible only where the service listens on loopback."
    )
    keys_file: Path | None = Field(
        None, description="File of the hashed API keys; unset: keys.json in the store's folder."
    )
    metrics: Literal["public", "key"] = Field(
        "key", description="Whether /metrics needs a key (scope `metrics`)."
    )
    docs: Literal["public", "key"] = Field(
        "public", description="Whether /docs and /openapi.json need a key (any)."
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description="Origins whose pages may call the service from a browser, as a JSON list; "
        "none: no page may.",
    )


class AuditSettings(_Section):
    path: Path | None = Field(
        None, description="The audit log; unset: audit.jsonl in the store's folder."
    )
    decisions: bool = Field(
        False, description="Also write down who was identified and verified, not only changes."
    )
    max_file_bytes: int = Field(
        100 << 20, ge=4096, description="Size at which a file is closed and the next one begun."
    )


class LimitSettings(_Section):
    requests_per_second: float = Field(
        1000, gt=0, description="For each key, or each client address where no key is needed."
    )
    request_burst: int = Field(1000, ge=1, description="Requests that may come at once.")
    max_concurrent_requests: int = Field(128, ge=1, description="For each key or address.")
    max_body_bytes: int = Field(32 << 20, ge=1024, description="Request body.")
    max_body_bytes_in_flight: int = Field(
        256 << 20, ge=1024, description="Bodies of all requests together; more are answered 503."
    )
    body_timeout_s: float = Field(60, gt=0, description="Within which a body has to arrive.")
    max_pixels: int = Field(50_000_000, ge=1024, description="Pixels an image may declare.")
    max_images: int = Field(16, ge=1, le=1000, description="Images in one enrolment.")
    max_faces_per_image: int = Field(100, ge=1, le=1000, description="Faces in one image.")
    max_photos_per_core: int = Field(
        16, ge=2, description="Photos being processed or waiting; more are answered 503."
    )
    max_queue_s: float = Field(
        1.0,
        gt=0,
        description="Seconds that a photo to be recognised may wait for a core; one that has "
        "waited longer, and new ones meanwhile, are answered 503. Enrolments wait.",
    )
    max_faces_per_person: int = Field(100, ge=1, le=10_000, description="Enrolled faces.")
    max_galleries: int = Field(
        1000, ge=1, description="Galleries, emptied ones among them until the next purge."
    )
    max_persons_per_gallery: int = Field(1_000_000, ge=1, description="Persons of one gallery.")
    max_faces_per_gallery: int = Field(5_000_000, ge=1, description="Faces of one gallery.")
    max_metadata_bytes: int = Field(16 << 10, ge=2, description="A person's metadata as JSON.")
    min_eye_distance_px: float = Field(
        8.0, ge=1, description="Smallest face that is aligned: pixels between the eyes."
    )

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_body_bytes > self.max_body_bytes_in_flight:
            raise ValueError("MAX_BODY_BYTES_IN_FLIGHT must be no less than MAX_BODY_BYTES")
        return self


class PrivacySettings(_Section):
    purge_interval_s: int = Field(
        3600,
        ge=1,
        le=30 * 24 * 3600,
        description="How often persons who have expired are erased, and the files of the embedded "
        "store rid of what was deleted. The alert FaceidPurgeFails expects less than a day.",
    )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="FACEID_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    model: ModelSettings = ModelSettings()
    store: StoreSettings = StoreSettings()
    decision: DecisionSettings = DecisionSettings()
    enrolment: EnrolmentSettings = EnrolmentSettings()
    limits: LimitSettings = LimitSettings()
    privacy: PrivacySettings = PrivacySettings()
    auth: AuthSettings = AuthSettings()
    audit: AuditSettings = AuditSettings()

    @property
    def keys_file(self) -> Path:
        return self.auth.keys_file or self.store.path / "keys.json"

    @property
    def audit_path(self) -> Path:
        return self.audit.path or self.store.path / "audit.jsonl"


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        InvalidSettings: names every variable that is wrong and what it may be.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"FACEID_{'__'.join(str(part).upper() for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise InvalidSettings("; ".join(lines)) from None
