"""The formula language: text -> FormulaSpec; no data."""

from .parser import parse, with_part
from .spec import FormulaSpec, NeuralSpec, OffsetSpec, PartSpec, RandomSpec, ResponseSpec

__all__ = [
    "FormulaSpec",
    "NeuralSpec",
    "OffsetSpec",
    "PartSpec",
    "RandomSpec",
    "ResponseSpec",
    "parse",
    "with_part",
]
