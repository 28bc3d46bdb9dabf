"""Average precision on annotated images, and the reading of such sets."""

from rdlite.evaluate.ap import EvalResult, evaluate

__all__ = ["EvalResult", "evaluate"]
