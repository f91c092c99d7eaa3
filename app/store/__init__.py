"""The store of faces: one protocol, two engines.

`app.store.server` is not imported here: its client takes half a second to load, and most do
without it.
"""

from app.store.base import (
    Embedder,
    Face,
    FloatArray,
    Fuse,
    GallerySize,
    Neighbour,
    Page,
    Person,
    Store,
    StoredPage,
    StoredPerson,
    Targets,
    TemplatePage,
)
from app.store.embedded import EmbeddedStore

__all__ = [
    "EmbeddedStore",
    "Embedder",
    "Face",
    "FloatArray",
    "Fuse",
    "GallerySize",
    "Neighbour",
    "Page",
    "Person",
    "Store",
    "StoredPage",
    "StoredPerson",
    "Targets",
    "TemplatePage",
]
