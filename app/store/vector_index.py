"""How a Qdrant server indexes templates: the graph, the codes, and how far a search looks.

Ranges and effects are Qdrant's (https://qdrant.tech/documentation/manage-data/indexing/ and
.../quantization/), the defaults were measured (docs/results.md).
"""

from dataclasses import dataclass
from typing import Literal

from qdrant_client import models

from app.store import records

Quantization = Literal["ram", "disk", "off"]

_PLACES = {"ram": models.Memory.PINNED, "disk": models.Memory.COLD}


@dataclass(frozen=True)
class VectorIndex:
    """
    Attributes:
        m: links of a person in the HNSW graph of the gallery; 0: no graph, searches are scans.
        min_ef: candidates that a search of a graph keeps, at the least.
        persons_per_ef: one candidate for so many persons of the gallery in a shard, where that
            is more.
        quantization: where the templates' 4-bit codes are; `off`: there are none.
        oversampling: candidates by code that are scored exactly, for each person wanted.
    """

    m: int = 16
    min_ef: int = 256
    persons_per_ef: int = 400
    quantization: Quantization = "ram"
    oversampling: float = records.OVERSAMPLING

    def hnsw(self) -> models.HnswConfigDiff:
        # A graph for each gallery, none across them.
        return models.HnswConfigDiff(m=0, payload_m=self.m)

    def codes(self) -> models.TurboQuantization | None:
        if self.quantization == "off":
            return None
        return models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(
                bits=models.TurboQuantBitSize.BITS4, memory=_PLACES[self.quantization]
            )
        )

    def search(self, persons: int, limit: int, *, exact: bool) -> models.SearchParams:
        """For the `limit` nearest of a gallery of so many persons in each shard."""
        return models.SearchParams(
            exact=exact,
            hnsw_ef=max(self.min_ef, persons // self.persons_per_ef),
            quantization=models.QuantizationSearchParams(
                ignore=exact,
                rescore=True,
                oversampling=records.oversampling(limit, self.oversampling),
            ),
        )

    def changes(self, config: models.CollectionConfig) -> list[str]:
        """What a collection has otherwise, as a message may say it."""
        graph, codes = config.hnsw_config, config.quantization_config
        found = {
            "links": (graph.payload_m if graph.payload_m is not None else graph.m, self.m),
            "links across galleries": (graph.m, 0),
            "codes": (_described(codes), _described(self.codes())),
        }
        return [
            f"{name} {before} -> {after}"
            for name, (before, after) in found.items()
            if before != after
        ]


DEFAULT_INDEX = VectorIndex()


def _described(codes: models.QuantizationConfig | None) -> str:
    if not isinstance(codes, models.TurboQuantization):
        return "none" if codes is None else type(codes).__name__
    bits, memory = codes.turbo.bits, codes.turbo.memory
    return f"{bits.value if bits else 'default'}, {memory.value if memory else 'default'}"
