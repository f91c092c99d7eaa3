"""Receipts of erasures."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.schemas import base


class ErasureReceipt(base.Schema):
    """That a person was erased. It names nobody: `person_digest` is an HMAC-SHA256 of gallery and
    person id under a key that stays in the store."""

    receipt_id: str
    gallery: str
    person_digest: str
    reason: Literal["request", "expired"]
    state: Literal["begun", "erased", "abandoned"] = Field(
        description="`begun`: the service was stopped before it was done. `abandoned`: there was "
        "nobody to erase any more, or who had expired could not be erased yet."
    )
    begun_at: datetime
    erased_at: datetime | None
    faces_deleted: int = Field(description="With the person.")
    probes: int = Field(
        description="Exact searches made afterwards: one with the person's template, one with the "
        "embedding of each face."
    )
    found: int = Field(
        description="How many of them found the person, and of one who had expired, whom no search "
        "finds, records still there; 0, unless they were enrolled anew at the same moment."
    )


class DeletedPerson(ErasureReceipt):
    person_id: str = Field(description="In this answer alone, not in the receipt that is kept.")


class ErasureList(base.Schema):
    erasures: list[ErasureReceipt] = Field(description="Oldest first.")
    cursor: str | None = Field(description="Ask again with it for the next page; null: the last.")


class PurgeAnswer(base.Schema):
    persons: int = Field(description="Who had expired and are erased.")
    faces: int = Field(description="Erased with them.")
    galleries_rewritten: int = Field(
        description="Written anew by the embedded store, to be rid of what was deleted in them."
    )
