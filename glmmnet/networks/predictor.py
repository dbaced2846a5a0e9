"""The sum of all nn() blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glmmnet.networks.block import NeuralBlock


class NeuralPredictor(nn.Module):
    """f(x) = scale * sum of blocks - centre.

    Parameters
    ----------
    blocks : sequence of NeuralBlock
        At least one.
    n_outputs : int
        C.
    scale : float
        Size of f: the response's standard deviation for an identity link, else 1.

    Attributes
    ----------
    centre : Tensor, (C,)
        Mean over the training rows, so that the intercept means what it says.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, blocks: Sequence[NeuralBlock], n_outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        if not blocks:
            raise ValueError("NeuralPredictor() needs at least one block.")
        self.blocks = nn.ModuleList(blocks)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("centre", torch.zeros(n_outputs, dtype=torch.float32))

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        """Output f (n, C) at the blocks' raw inputs, each (n, d), float32."""
        if len(xs) != len(self.blocks):
            raise ValueError(f"There are {len(self.blocks)} blocks, but inputs for {len(xs)}.")
        total: Tensor = self.blocks[0](xs[0])
        for block, x in zip(self.blocks[1:], xs[1:], strict=True):
            total = total + block(x)
        return self.scale * total - self.centre

    def predict(self, xs: Sequence[Tensor], batch: int = 8192) -> Tensor:
        """Output f (n, C), float64, in eval mode, without a gradient; the modes are restored.

        Parameters
        ----------
        xs : sequence of Tensor, each (n, d)
        batch : int
            Rows a time.
        """
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.no_grad():
                parts = [self([x[i : i + batch] for x in xs]) for i in range(0, max(len(xs[0]), 1), batch)]
        finally:
            for module, training in modes:
                module.training = training
        return torch.cat(parts).to(torch.float64)
