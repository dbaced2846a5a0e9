"""Torch modules for nn() blocks."""

from __future__ import annotations

from glmmnet.networks.average import WeightAverage
from glmmnet.networks.block import NeuralBlock
from glmmnet.networks.build import build_block, build_predictor
from glmmnet.networks.options import NNOptions
from glmmnet.networks.predictor import NeuralPredictor

__all__ = ["NNOptions", "NeuralBlock", "NeuralPredictor", "WeightAverage", "build_block", "build_predictor"]
