"""Reports on embeddings, without the files that `training.evaluation.run` reads and writes."""

from collections.abc import Mapping

import numpy as np

from training.data import Pairs
from training.evaluation.evaluate import RESAMPLES, compile_report, measure_faces, measure_pairs
from training.evaluation.report import Model, Report, Section

SEED = 0


def evaluate(
    models: Mapping[str, np.ndarray],
    labels: np.ndarray,
    dataset: str = "",
    resamples: int = RESAMPLES,
) -> Report:
    sections = measure_faces(list(models.values()), labels, SEED, resamples, progress=False)
    return _compiled(models, sections, dataset, (len(labels), len(np.unique(labels))), resamples)


def evaluate_pairs(models: Mapping[str, np.ndarray], pairs: Pairs, resamples: int) -> Report:
    sections = measure_pairs(list(models.values()), pairs, SEED, resamples, progress=False)
    persons = 0 if pairs.persons is None else len(np.unique(pairs.persons))
    return _compiled(models, sections, "", (len(pairs.faces), persons), resamples)


def _compiled(
    models: Mapping[str, np.ndarray],
    sections: tuple[Section, ...],
    dataset: str,
    size: tuple[int, int],
    resamples: int,
) -> Report:
    about = [Model(name=name) for name in models]
    return compile_report(about, sections, dataset, size, SEED, resamples)
