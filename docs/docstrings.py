"""Lets the API page know the docstring section that is headed "Example:" as one of code."""

from __future__ import annotations

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Griffe knows it in the plural only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section of a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
