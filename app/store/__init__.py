"""The store of faces: one protocol, two engines."""

from app.store.base import (
    Embedder,
    Face,
    FloatArray,
    GallerySize,
    Neighbour,
    Page,
    Person,
    Store,
)
from app.store.embedded import EmbeddedStore
from app.store.server import ServerStore, connect

__all__ = [
    "EmbeddedStore",
    "Embedder",
    "Face",
    "FloatArray",
    "GallerySize",
    "Neighbour",
    "Page",
    "Person",
    "ServerStore",
    "Store",
    "connect",
]
