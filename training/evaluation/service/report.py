"""What an evaluation of a service found, as it is written to JSON.

Figures, curves, and the names of persons and of photos, which are called person/file; never a
face or an embedding.
"""

from typing import Literal

from training.evaluation.report import Part, Section


class ServiceFacts(Part):
    """What a service says of itself."""

    model: str
    calibration: str
    device: str
    store: str


class RefusedPhoto(Part):
    """A photo that was not enrolled, and the code of why."""

    photo: str
    code: str


class Enrolment(Part):
    """How enrolling went.

    Attributes:
        what: was enrolled.
        persons, photos: sent.
    """

    what: str
    persons: int
    photos: int
    refused: tuple[RefusedPhoto, ...]


class Latency(Part):
    """
    Attributes:
        call: what was asked for.
        p50_ms, p90_ms, p99_ms: percentiles of the time from request to answer.
        per_second: requests answered.
    """

    call: str
    requests: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    per_second: float


class Duplicate(Part):
    """Two persons whom the service takes for one."""

    persons: tuple[str, str]
    similarity: float
    threshold: float


class InconsistentPhoto(Part):
    """An enrolled photo that does not look like the others of its person."""

    photo: str
    similarity: float
    threshold: float


class ServiceReport(Part):
    """
    Attributes:
        verdict: what it comes to, in a sentence.
        photos, persons: found.
        left_out: files that could not be sent, by code.
        target_fpir: the service's own.
        resamples: draws of persons behind each interval.
        at_once: requests under way at a time.
        not_acquired: photos looked for about which nothing could be said, by code.
        sections: `identification/1`, `identification/3`, `closed/3`.
    """

    format: Literal[1] = 1
    service: ServiceFacts
    verdict: str
    dataset: str
    photos: int
    persons: int
    left_out: dict[str, int]
    target_fpir: float
    seed: int
    resamples: int
    at_once: int
    sections: tuple[Section, ...]
    enrolments: tuple[Enrolment, ...]
    not_acquired: dict[str, int]
    duplicates: tuple[Duplicate, ...]
    inconsistent: tuple[InconsistentPhoto, ...]
    latencies: tuple[Latency, ...]

    def section(self, key: str) -> Section:
        """
        Raises:
            KeyError: there is none of this key.
        """
        for section in self.sections:
            if section.key == key:
                return section
        raise KeyError(key)
