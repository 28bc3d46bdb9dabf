"""Models side by side: what each of them finds in the same pictures."""

from rdlite.compare.result import Agreement, ComparedPicture, Comparison, ModelTotals
from rdlite.compare.run import compare

__all__ = ["Agreement", "ComparedPicture", "Comparison", "ModelTotals", "compare"]
