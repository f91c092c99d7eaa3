"""What Prometheus sees. One registry per application, none global."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_STAGE_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

_DECISIONS = {"identify": ("match", "unknown"), "verify": ("verified", "not_verified")}


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "faceid_http_requests",
            "Requests answered, by route template.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "faceid_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["method", "route"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "faceid_stage_duration_seconds",
            "One stage of one photo: queue, decode, detect, align, embed or search.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "faceid_batch_faces",
            "Faces that shared one inference.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.photos_in_flight = Gauge(
            "faceid_photos_in_flight",
            "Photos being processed or waiting for a core.",
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "faceid_queue_depth",
            "Jobs waiting for a core or for the GPU.",
            registry=self.registry,
        )
        self.rejected_images = Counter(
            "faceid_rejected_images",
            "Images that could not be used, by error code.",
            ["code"],
            registry=self.registry,
        )
        self.enrolment_warnings = Counter(
            "faceid_enrolment_warnings",
            "Warnings about faces that were enrolled all the same, by error code.",
            ["code"],
            registry=self.registry,
        )
        self.failed_enrolments = Counter(
            "faceid_failed_enrolments",
            "Images sent to be enrolled that could not be, by error code.",
            ["code"],
            registry=self.registry,
        )
        self.decisions = Counter(
            "faceid_decisions",
            "Answers given for a face: match or unknown, verified or not_verified.",
            ["call", "decision"],
            registry=self.registry,
        )
        self.similarity = Histogram(
            "faceid_similarity_ratio",
            "Cosine similarity of the best candidate, or of a verified pair.",
            ["call"],
            buckets=[round(-0.2 + 0.05 * i, 2) for i in range(25)],
            registry=self.registry,
        )
        # There from the start: Prometheus cannot see what a series did before it appeared.
        for call, answers in _DECISIONS.items():
            self.similarity.labels(call)
            for decision in answers:
                self.decisions.labels(call, decision)
        self.store_up = Gauge(
            "faceid_store_up", "Whether the store answers, 0 or 1.", registry=self.registry
        )
        self.store_breaker_open = Gauge(
            "faceid_store_breaker_open",
            "Whether requests to the Qdrant server are held back, as it fails, 0 or 1.",
            registry=self.registry,
        )
        self.gallery_persons = Gauge(
            "faceid_gallery_persons", "Persons enrolled.", ["gallery"], registry=self.registry
        )
        self.gallery_faces = Gauge(
            "faceid_gallery_faces", "Faces enrolled.", ["gallery"], registry=self.registry
        )
        self.erased_persons = Counter(
            "faceid_erased_persons",
            "Persons erased: on request, or as they had expired.",
            ["reason"],
            registry=self.registry,
        )
        self.erased_faces = Counter(
            "faceid_erased_faces", "Their faces.", ["reason"], registry=self.registry
        )
        for reason in ("request", "expired"):
            self.erased_persons.labels(reason)
            self.erased_faces.labels(reason)
        self.vacuumed_galleries = Counter(
            "faceid_vacuumed_galleries",
            "Times a gallery was written anew, to be rid of what was deleted in it.",
            registry=self.registry,
        )
        self.last_purge = Gauge(
            "faceid_last_purge_timestamp_seconds",
            "When the last purge was complete, as a Unix time.",
            registry=self.registry,
        )
        self.carried_faces = Gauge(
            "faceid_carried_faces",
            "Faces in the store of the other model: embedded, or awaiting a new photo.",
            ["state"],
            registry=self.registry,
        )
        for state in ("embedded", "awaiting"):
            self.carried_faces.labels(state)
        self.swap_state = Gauge(
            "faceid_swap_state",
            "0: one model; 1: faces are carried over to another; 2: both are equal.",
            registry=self.registry,
        )
        self.model_info = Gauge(
            "faceid_model_info",
            "Always 1; the labels say which embedder runs where.",
            ["model", "device"],
            registry=self.registry,
        )
