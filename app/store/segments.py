"""The files of a gallery in the embedded engine: how they are set up, made and divided."""

import shutil
from pathlib import Path
from uuid import uuid4

import qdrant_edge as edge

from app.store import records
from app.store.base import Embedder
from app.store.files import sync

# The point that says what the shard is.
META_ID = 0


def create(folder: Path, embedder: Embedder, *, durable: bool = True) -> None:
    """Make the shard of an empty gallery; the caller makes its folder's name durable."""
    shard = _new(folder, embedder.dimension)
    meta = edge.Point(META_ID, {}, records.meta_payload(embedder))
    shard.update(edge.UpdateOperation.upsert_points([meta]))
    if durable:
        shard.flush()
    shard.close()


def add_segments(folder: Path, count: int, embedder: Embedder, scratch: Path) -> None:
    """Give a closed shard `count` more segments to spread its persons over.

    The engine writes each upsert to the smallest of its appendable segments, and loads whatever
    lies in its folder: so an empty segment of another new shard, moved in, is filled until it is
    as large as the others. A crash in between leaves one segment more or less, which is no harm.
    All of this is how release 0.9.0 does it and promised by nobody: that is why the dependency
    is pinned, and a test fails where a release does otherwise.

    Args:
        scratch: a folder name on the same disk, used and removed.
    """
    for _ in range(count):
        _new(scratch, embedder.dimension).close()
        (segment,) = (entry for entry in (scratch / "segments").iterdir() if entry.is_dir())
        for entry in segment.rglob("*"):
            sync(entry)
        segment.rename(folder / "segments" / str(uuid4()))
        shutil.rmtree(scratch)
    sync(folder / "segments")


def config(dimension: int, threads: int) -> edge.EdgeConfig:
    """
    Args:
        dimension: components of a template.
        threads: of one search.
    """
    return edge.EdgeConfig(
        vectors={records.VECTOR: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)},
        payload_memory=edge.Memory.Cached,
        # m=0: no graph; building one holds up the process for seconds, a scan is exact.
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10),
        quantization_config=edge.TurboQuantQuantizationConfig(
            bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned
        ),
        optimizers=edge.EdgeOptimizersConfig(
            # Never "index" (12 s for a million faces, nothing gained), nor merge what is scanned
            # in parallel.
            indexing_threshold=2**40,
            default_segment_number=64,
        ),
        max_search_threads=threads,
    )


def _new(folder: Path, dimension: int) -> edge.EdgeShard:
    """A new shard, open, with one empty segment."""
    shard = edge.EdgeShard.create(str(folder), config(dimension, threads=1))
    index = edge.IntegerIndexParams()
    shard.update(edge.UpdateOperation.create_field_index("face_count", index))
    shard.flush()
    return shard
