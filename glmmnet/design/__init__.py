"""FormulaSpec + DataFrame -> Design; the same state rebuilds new data."""

from .build import build_design
from .records import Design
from .state import DesignState
from .stored import decode, encode, state_from_dict, state_to_dict

__all__ = ["Design", "DesignState", "build_design", "decode", "encode", "state_from_dict", "state_to_dict"]
