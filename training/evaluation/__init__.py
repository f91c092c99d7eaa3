"""How good an embedder is, and whether it is better than another.

    scores, verification    one against one: ROC, EER, TAR at FAR, ten folds
    identification          one against many: CMC, FNIR at FPIR
    retrieval, classification, separation
    bootstrap               intervals, by resampling persons
    evaluate, run           all of it, as a `Report`: JSON, and a page with plots

NumPy, scikit-learn and matplotlib; PyTorch is not imported.
"""

from training.evaluation.embedder import Embedder, embed_faces, open_embedder
from training.evaluation.evaluate import evaluate, evaluate_pairs
from training.evaluation.identification import Identification, search, split
from training.evaluation.page import write_html
from training.evaluation.report import Report
from training.evaluation.runner import run
from training.evaluation.scores import Curve, Scores
from training.evaluation.verification import Verification, all_pairs, distances

__all__ = [
    "Curve",
    "Embedder",
    "Identification",
    "Report",
    "Scores",
    "Verification",
    "all_pairs",
    "distances",
    "embed_faces",
    "evaluate",
    "evaluate_pairs",
    "open_embedder",
    "run",
    "search",
    "split",
    "write_html",
]
