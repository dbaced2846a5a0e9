"""Generalized linear mixed models whose fixed part may hold a neural network, written as a formula."""

from importlib.metadata import version

from glmmnet import datasets

__version__ = version("glmmnet")

__all__ = ["__version__", "datasets"]
