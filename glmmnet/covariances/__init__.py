"""Covariance structures of random terms: one file a structure, found by name."""

from __future__ import annotations

from glmmnet._registry import Registry
from glmmnet.covariances._base import Covariance, FactorEntries, symmetric

COVARIANCES: Registry[Covariance] = Registry("covariance structure", "glmmnet.covariances")

__all__ = ["COVARIANCES", "Covariance", "FactorEntries", "symmetric"]
