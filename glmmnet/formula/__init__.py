"""The formula language: text -> FormulaSpec; no data."""

from .parser import parse
from .spec import FormulaSpec, NeuralSpec, OffsetSpec, RandomSpec, ResponseSpec

__all__ = ["FormulaSpec", "NeuralSpec", "OffsetSpec", "RandomSpec", "ResponseSpec", "parse"]
