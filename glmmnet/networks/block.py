"""One nn() block: standardisation, embeddings, body."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from glmmnet.networks.options import ACTIVATIONS, NNOptions


class Embeddings(nn.Module):
    """Replace each one-hot coded variable by `width` learned columns; the other columns stay, and come first.

    Parameters
    ----------
    n_inputs : int
    ranges : sequence of (int, int)
        Column ranges [start, stop), one a variable.
    width : int
    """

    def __init__(self, n_inputs: int, ranges: Sequence[tuple[int, int]], width: int) -> None:
        super().__init__()
        coded = {c for start, stop in ranges for c in range(start, stop)}
        plain = torch.tensor([c for c in range(n_inputs) if c not in coded], dtype=torch.int64)
        self.plain: Tensor
        self.register_buffer("plain", plain, persistent=False)
        self.ranges = tuple(ranges)
        self.n_outputs = len(plain) + width * len(self.ranges)
        tables = [nn.Linear(stop - start, width, bias=False) for start, stop in ranges]
        for table in tables:
            nn.init.normal_(table.weight)
        self.tables = nn.ModuleList(tables)

    def forward(self, x: Tensor) -> Tensor:
        """Columns that are not embedded, then the embeddings: x (n, d) -> (n, h)."""
        columns = [x.index_select(1, self.plain)]
        for table, (start, stop) in zip(self.tables, self.ranges, strict=True):
            columns.append(table(x[:, start:stop]))
        return torch.cat(columns, dim=1)


class NeuralBlock(nn.Module):
    """f of one nn() block, from raw inputs (n, d) to linear predictors (n, C).

    Parameters
    ----------
    mean, sd : ndarray, (d,)
        Standardisation of the inputs, kept as buffers.
    embeddings : Embeddings or None
    body : Module
        From the standardised inputs (n, h) to (n, C).
    options : NNOptions
    description : str
        What `describe` says.

    Attributes
    ----------
    weight_decay : float
        Penalty that the optimiser shall put on this block's weights.
    """

    mean: Tensor
    sd: Tensor

    def __init__(
        self,
        mean: np.ndarray,
        sd: np.ndarray,
        embeddings: Embeddings | None,
        body: nn.Module,
        options: NNOptions,
        description: str,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("sd", torch.as_tensor(sd, dtype=torch.float32))
        self.embeddings = embeddings
        self.body = body
        self.weight_decay = options.weight_decay
        self._description = description

    def forward(self, x: Tensor) -> Tensor:
        """Linear predictors (n, C) at raw inputs x (n, d), float32."""
        out: Tensor = self.body(self._inputs(x))
        return out

    def features(self, x: Tensor) -> Tensor | None:
        """The columns (n, h) that f is linear in: the last hidden layer, of a linear block its inputs.

        None where the body is a user's network that does not end in a linear layer.
        """
        body = self.body
        if not (isinstance(body, nn.Sequential) and len(body) and isinstance(body[-1], nn.Linear)):
            return None
        hidden: Tensor = body[:-1](self._inputs(x))
        return hidden

    def describe(self) -> str:
        """One line for a summary, e.g. ``2-64-32-1 silu, l2=3e-2``."""
        return self._description

    @property
    def n_weights(self) -> int:
        """Number of weights that training changes."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def _inputs(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.sd
        return z if self.embeddings is None else self.embeddings(z)


def perceptron(n_inputs: int, n_outputs: int, options: NNOptions) -> nn.Sequential:
    """Hidden layers with activation and dropout, then a linear layer without bias at the start."""
    parts: list[nn.Module] = []
    width = n_inputs
    for next_width in options.layers:
        parts += [nn.Linear(width, next_width), ACTIVATIONS[options.activation]()]
        if options.dropout > 0:
            parts.append(nn.Dropout(options.dropout))
        width = next_width
    last = nn.Linear(width, n_outputs)
    with torch.no_grad():
        last.bias.zero_()
    return nn.Sequential(*parts, last)
