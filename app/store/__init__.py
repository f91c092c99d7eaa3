"""The store of faces: one protocol, two engines.

`app.store.server` is not imported here: its client takes half a second to load, and most do
without it.
"""

from app.store.base import (
    Consent,
    Embedder,
    Export,
    Face,
    FloatArray,
    Fuse,
    GallerySize,
    Neighbour,
    Page,
    Person,
    Receipt,
    Receipts,
    Store,
    StoredPage,
    StoredPerson,
    Targets,
    TemplatePage,
)
from app.store.embedded import EmbeddedStore

__all__ = [
    "Consent",
    "EmbeddedStore",
    "Embedder",
    "Export",
    "Face",
    "FloatArray",
    "Fuse",
    "GallerySize",
    "Neighbour",
    "Page",
    "Person",
    "Receipt",
    "Receipts",
    "Store",
    "StoredPage",
    "StoredPerson",
    "Targets",
    "TemplatePage",
]
