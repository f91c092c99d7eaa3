"""What schemathesis cannot know of our API: photos, a person who exists, rates that can be had.

Loaded by the runs of `tests.abuse.schema`.
"""

import base64
import random
from datetime import UTC, datetime
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import UseAfterFree

from tests.abuse.mutants import originals

PERSON = "grace"
# When persons were deleted last, by gallery and id.
_deleted: dict[tuple[str, str], datetime] = {}
# All of one person: several in one enrolment must not look like several people.
PHOTOS = originals()[: len(originals()) // 2]


def _photos(kind: str) -> strategies.SearchStrategy[bytes]:
    return strategies.sampled_from([photo.data for photo in PHOTOS if photo.kind == kind])


for _kind in ("JPEG", "PNG", "WEBP", "BMP"):
    schemathesis.openapi.media_type(f"image/{_kind.lower()}", _photos(_kind))
schemathesis.openapi.format("binary", _photos("PNG"))
schemathesis.openapi.format("byte", _photos("JPEG").map(base64.b64encode).map(bytes.decode))


@schemathesis.hook
def before_load_schema(_: object, document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            # A cursor is what an answer gave; the person of /verify is in the body.
            operation["parameters"] = [
                parameter
                for parameter in operation.get("parameters", [])
                if parameter["name"] != "cursor"
                and (path, parameter["name"]) != ("/verify", "person_id")
            ]
            content = operation.get("requestBody", {}).get("content", {})
            if path == "/verify":  # a bare image would need a person
                for name in [name for name in content if name.startswith("image/")]:
                    del content[name]
            form = content.get("multipart/form-data", {})
            # Of a choice of forms schemathesis sends files as if they were text.
            if choice := form.get("schema", {}).get("oneOf"):
                form["schema"] = choice[0]
            example = content.get("application/json", {}).get("example", {})
            for name in example.keys() & {"image", "image_a", "image_b"}:
                example[name] = base64.b64encode(PHOTOS[0].data).decode()


@schemathesis.hook
def before_call(_: object, case: schemathesis.Case, __: object) -> None:
    """Most requests are about a person who is there, and is never deleted."""
    if case.meta is None or case.method == "DELETE" or not case.path_parameters:
        return
    if case.meta.phase.name is TestPhase.STATEFUL:
        return
    component = case.meta.components.get(ParameterLocation.PATH)
    wrong = component is not None and component.mode is GenerationMode.NEGATIVE
    if "person_id" in case.path_parameters and not wrong and random.random() < 0.7:
        case.path_parameters["person_id"] = PERSON


@schemathesis.hook
def after_call(_: object, case: schemathesis.Case, response: schemathesis.Response) -> None:
    if case.method == "DELETE" and response.status_code == 200:
        _deleted[_person_of(case)] = datetime.now(UTC)


@schemathesis.hook
def filter_failure(
    _: object, failure: Exception, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """Whether it is one. What the service could not answer always is; four others are not:

    a rate that the calibration does not know, which no schema can say and the answer does; bytes
    that are no model, likewise; a form with an empty array in it, which is sent as nothing, and so
    is not wrong; and a person who was
    deleted and has been enrolled since, which only the time of the record tells.
    """
    if response.status_code >= 500:
        return True
    unforeseen = {"unsupported_target", "unusable_model"}
    if response.status_code == 422 and response.json()["code"] in unforeseen:
        return False
    form = case.body if case.media_type == "multipart/form-data" else None
    if isinstance(form, dict) and [] in form.values():
        return False
    if isinstance(failure, UseAfterFree) and "created_at" in response.json():
        created = datetime.fromisoformat(response.json()["created_at"])
        return created < _deleted[_person_of(case)]
    return True


def _person_of(case: schemathesis.Case) -> tuple[str, str]:
    gallery = (case.query or {}).get("gallery", "default")
    return str(gallery), str((case.path_parameters or {}).get("person_id"))
