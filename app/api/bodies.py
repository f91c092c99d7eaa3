"""Images out of request bodies: multipart, a bare image, or base64 in JSON."""

import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from app.errors import BodyTooLarge, ClientDisconnected, InvalidRequest, UnsupportedMediaType
from app.schemas import identifiers
from app.settings import LimitSettings

Model = TypeVar("Model", bound=BaseModel)

# Who is cut off while sending may never read the answer, so up to twice the limit is read, and
# dropped on the way; what goes on after that is cut off.
_DISCARDED = 2

_IMAGE_FIELDS = ("image", "image_a", "image_b")
_TEXT_FIELDS = ("person_id",)
# A PNG of one pixel.
_EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True, slots=True)
class Body:
    """
    Attributes:
        images: field name to the images sent under it, in order.
        fields: everything else, as text.
    """

    images: dict[str, list[bytes]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    def only_image(self) -> bytes:
        """
        Raises:
            InvalidRequest: not exactly one field `image` with one image.
        """
        images = self.images.get("image", [])
        if len(images) != 1 or len(self.images) > 1:
            raise InvalidRequest(
                f"Send exactly one image, in the field 'image'; {len(images)} came."
            )
        return images[0]


async def read_body(request: Request, limits: LimitSettings) -> Body:
    """
    Raises:
        BodyTooLarge: nothing beyond the limit was kept.
        UnsupportedMediaType: neither multipart, nor an image, nor JSON.
        InvalidRequest: malformed, or an unknown field.
        ClientDisconnected: the client hung up while sending.
    """
    media_type = _media_type(request)
    if media_type not in {"multipart/form-data", "application/json"} and (
        not media_type.startswith("image/")
    ):
        raise UnsupportedMediaType(
            f"Content-Type is {media_type or 'missing'}; send multipart/form-data with a field "
            "'image', a bare image/jpeg, image/png, image/webp or image/bmp, or application/json."
        )
    data = await _read(request, limits.max_body_bytes)
    if media_type == "multipart/form-data":
        body = await _from_multipart(request.headers, data, limits)
    elif media_type == "application/json":
        body = _from_json(data)
    else:
        body = Body({"image": [data]})
    count = sum(len(images) for images in body.images.values())
    if count > limits.max_images:
        raise InvalidRequest(
            f"{count} images came, at most {limits.max_images} are allowed in one request."
        )
    return body


async def read_binary(request: Request, limits: LimitSettings) -> bytes:
    """
    Raises:
        BodyTooLarge, ClientDisconnected: as in `read_body`.
        UnsupportedMediaType: not application/octet-stream.
    """
    if _media_type(request) != "application/octet-stream":
        raise UnsupportedMediaType("Send the file as application/octet-stream.")
    return await _read(request, limits.max_body_bytes)


async def _read(request: Request, limit: int) -> bytes:
    chunks = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            elif size > _DISCARDED * limit:
                break
    except ClientDisconnect:
        raise ClientDisconnected("The client hung up before the body was complete.") from None
    if size > limit:
        raise BodyTooLarge(
            f"The body is larger than {limit:,} bytes; send less at once; "
            "FACEID_LIMITS__MAX_BODY_BYTES sets how much it may be."
        )
    return b"".join(chunks)


async def read_model(request: Request, model: type[Model], limits: LimitSettings) -> Model:
    """A JSON body as a schema.

    Raises:
        BodyTooLarge, ClientDisconnected: as in `read_body`.
        UnsupportedMediaType: not JSON by its Content-Type.
        InvalidRequest: not JSON, or not what the schema says.
    """
    if _media_type(request) != "application/json":
        raise UnsupportedMediaType("Send the body as application/json.")
    document = _parse_json(await _read(request, limits.max_body_bytes))
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidRequest(found or "The body must be a JSON object.") from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class _InMemoryParser(MultiPartParser):
    # A photo must not touch the disk; the body's size is limited before it gets here.
    spool_max_size = 1 << 40


async def _from_multipart(headers: Headers, data: bytes, limits: LimitSettings) -> Body:
    async def stream() -> AsyncIterator[bytes]:
        yield data

    try:
        form = await _InMemoryParser(
            headers,
            stream(),  # type: ignore[arg-type]  # an async generator is all it iterates over
            max_files=limits.max_images + 1,
            max_fields=8,
        ).parse()
    except (MultiPartException, KeyError) as error:
        reason = getattr(error, "message", "no boundary in the Content-Type header")
        raise InvalidRequest(f"The multipart body is malformed: {reason}") from None
    body = Body()
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                _check_image_field(name)
                body.images.setdefault(name, []).append(await value.read())
            elif name in _IMAGE_FIELDS:
                raise InvalidRequest(f"The field {name!r} is text; send it as a file.")
            else:
                _check_text_field(name)
                body.fields[name] = value
    finally:
        await form.close()
    return body


def _from_json(data: bytes) -> Body:
    document = _parse_json(data)
    if not isinstance(document, dict):
        raise InvalidRequest('The JSON body must be an object such as {"image": "<base64>"}.')
    body = Body()
    for name, value in document.items():
        if name in _IMAGE_FIELDS:
            items = value if isinstance(value, list) else [value]
            body.images[name] = [_from_base64(name, item) for item in items]
        else:
            _check_text_field(name)
            if not isinstance(value, str):
                raise InvalidRequest(f"The field {name!r} must be a string.")
            body.fields[name] = value
    return body


def _parse_json(data: bytes) -> Any:
    # Stricter than the standard library: no NaN, no lone surrogates.
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None


def _from_base64(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidRequest(f"The field {name!r} must be base64 text.")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"The field {name!r} is not valid base64; send the bare encoding of the file, "
            "without a data: prefix or line breaks."
        ) from None


def _check_image_field(name: str) -> None:
    if name not in _IMAGE_FIELDS:
        raise InvalidRequest(
            f"Unknown file field {name!r}; images go into {', '.join(_IMAGE_FIELDS)}."
        )


def _check_text_field(name: str) -> None:
    # A gallery or a threshold in the wrong place would be ignored, and nobody would know.
    if name not in _TEXT_FIELDS:
        raise InvalidRequest(
            f"Unknown field {name!r}; only images and {', '.join(_TEXT_FIELDS)} go into the body, "
            "everything else into the query."
        )


def _content(*shapes: dict[str, bool]) -> dict[str, Any]:
    """OpenAPI request body in one of these shapes.

    Args:
        shapes: the fields of each, all required, and whether a field can be sent repeatedly.
    """

    def schema(image: dict[str, Any], many: dict[str, Any]) -> dict[str, Any]:
        objects = [
            {
                "type": "object",
                "properties": {
                    name: (many if repeatable else image)
                    if name in _IMAGE_FIELDS
                    else {"type": "string", "pattern": identifiers.PERSON_ID}
                    for name, repeatable in shape.items()
                },
                "required": list(shape),
                "additionalProperties": False,
            }
            for shape in shapes
        ]
        return objects[0] if len(objects) == 1 else {"oneOf": objects}

    def array(items: dict[str, Any]) -> dict[str, Any]:
        return {"type": "array", "items": items, "minItems": 1}

    file = {"type": "string", "format": "binary"}
    base64_text = {"type": "string", "format": "byte"}
    content = {
        "multipart/form-data": {"schema": schema(file, array(file))},
        "application/json": {
            "schema": schema(base64_text, {"oneOf": [base64_text, array(base64_text)]}),
            "example": {n: _EXAMPLE if n in _IMAGE_FIELDS else "grace" for n in shapes[0]},
        },
    }
    return {"requestBody": {"required": True, "content": content | _bare()}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI request body of the calls that use `read_model`."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def binary_body(description: str) -> dict[str, Any]:
    """OpenAPI request body of the calls that use `read_binary`."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    body = {"required": True, "description": description}
    return {"requestBody": body | {"content": {"application/octet-stream": schema}}}


def one_image() -> dict[str, Any]:
    """OpenAPI request body of the calls that take one image."""
    return _content({"image": False})


def several_images() -> dict[str, Any]:
    return _content({"image": True})


def two_images_or_person() -> dict[str, Any]:
    return _content({"image_a": False, "image_b": False}, {"image": False, "person_id": False})


def _bare() -> dict[str, Any]:
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {f"image/{kind}": schema for kind in ("jpeg", "png", "webp", "bmp")}
