"""The examples of the API's bodies, which the documentation shows."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

from app import schemas
from app.schemas.base import Schema
from app.schemas.problems import Problem


def examples() -> Iterator[Any]:
    for module in iter_modules(schemas.__path__):
        for model in vars(import_module(f"app.schemas.{module.name}")).values():
            if isinstance(model, type) and issubclass(model, (Schema, Problem)):
                for example in model.model_json_schema().get("examples", []):
                    yield pytest.param(model, example, id=model.__name__)
                for name, field in model.model_fields.items():
                    for example in field.examples or []:
                        type_ = Annotated[field.annotation, field]
                        yield pytest.param(type_, example, id=f"{model.__name__}.{name}")


@pytest.mark.parametrize(("type_", "example"), list(examples()))
def test_every_example_is_one(type_: Any, example: Any) -> None:
    TypeAdapter(type_).validate_python(example)
