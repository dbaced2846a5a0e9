"""Generalized linear mixed models whose fixed part may hold a neural network, written as a formula."""

from importlib.metadata import version

from glmmnet import datasets, families, simulate
from glmmnet.em.config import EMConfig
from glmmnet.errors import (
    ConvergenceWarning,
    DataWarning,
    DesignError,
    FitError,
    FormulaError,
    GLMMNetError,
    OptionError,
)
from glmmnet.model import GLMMNet, glmm
from glmmnet.results import GLMMNetResults, load

__version__ = version("glmmnet")

__all__ = [
    "ConvergenceWarning",
    "DataWarning",
    "DesignError",
    "EMConfig",
    "FitError",
    "FormulaError",
    "GLMMNet",
    "GLMMNetError",
    "GLMMNetResults",
    "OptionError",
    "__version__",
    "datasets",
    "families",
    "glmm",
    "load",
    "simulate",
]
