import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from tests.unit.training.evaluation.population import populate
from training.errors import Unresolvable
from training.evaluation import retrieval
from training.evaluation.retrieval import retrieve


def test_figures_are_those_of_pytorch_metric_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_AT_ONCE", 7)
    vectors, labels = populate(0, persons=30, faces=5)
    # Persons with one to five faces, in no order.
    kept = np.random.default_rng(0).permutation(len(labels))[:90]
    vectors, labels = vectors[kept], labels[kept]
    assert np.bincount(np.bincount(labels), minlength=6)[1:6].min() > 0
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(CosineSimilarity()),
        device=torch.device("cpu"),
    )
    expected = calculator.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(labels))
    figures = retrieve(vectors, labels).figures()
    assert 0.2 < expected["r_precision"] < 0.9
    assert figures["precision@1"] == pytest.approx(expected["precision_at_1"])
    assert figures["R-precision"] == pytest.approx(expected["r_precision"])
    assert figures["MAP@R"] == pytest.approx(expected["mean_average_precision_at_r"])


def test_without_a_second_face_there_is_nothing_to_find() -> None:
    with pytest.raises(Unresolvable, match="Nobody has two faces"):
        retrieve(np.eye(3, dtype=np.float32), np.arange(3))
