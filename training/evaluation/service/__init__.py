"""How good a running service is, on anybody's photos, over HTTP.

plan        whose photos are enrolled, and which are looked for
session     what is asked of the service
observe     all of it, in galleries that are emptied again
figures     from the answers to a `ServiceReport`
plots, page, summary
run         from photos to JSON and a page with plots
"""

from training.evaluation.service.report import ServiceReport
from training.evaluation.service.runner import run

__all__ = ["ServiceReport", "run"]
