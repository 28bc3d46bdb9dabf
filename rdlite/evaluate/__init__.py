"""Average precision on annotated images, and the reading of such sets."""

from rdlite.evaluate.ap import evaluate, evaluate_all
from rdlite.evaluate.bootstrap import Difference, Differences, compare_results
from rdlite.evaluate.result import ClassResult, EvalResult

__all__ = [
    "ClassResult",
    "Difference",
    "Differences",
    "EvalResult",
    "compare_results",
    "evaluate",
    "evaluate_all",
]
