"""FormulaSpec + DataFrame -> Design; the same state rebuilds new data."""

from .build import build_design
from .records import Design
from .state import DesignState

__all__ = ["Design", "DesignState", "build_design"]
