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


class Bins(nn.Module):
    """How far standardised columns have passed through each bin between their quantiles.

    Steps, bends and ties along one input are learned as easily as slopes, whatever its tails.

    Parameters
    ----------
    columns : ndarray of int, (m,)
        The column that each bin divides.
    lower, width : ndarray, (m,)
        Lower end and width of each bin.

    References
    ----------
    Gorishniy, Rubachev, Babenko (2022), On embeddings for numerical features in tabular deep learning, NeurIPS.
    """

    columns: Tensor
    lower: Tensor
    width: Tensor

    def __init__(self, columns: np.ndarray, lower: np.ndarray, width: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("columns", torch.as_tensor(columns, dtype=torch.int64))
        self.register_buffer("lower", torch.as_tensor(lower, dtype=torch.float32))
        self.register_buffer("width", torch.as_tensor(width, dtype=torch.float32))

    @property
    def n_outputs(self) -> int:
        """Bins of all columns, m."""
        return len(self.columns)

    def forward(self, z: Tensor) -> Tensor:
        """The bins (n, m) of standardised columns z (n, d): -1 before a bin, 1 beyond it."""
        passed = (z.index_select(1, self.columns) - self.lower) / self.width
        return 2.0 * passed.clamp(0.0, 1.0) - 1.0


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
        bins: Bins | None,
        body: nn.Module,
        options: NNOptions,
        description: str,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("sd", torch.as_tensor(sd, dtype=torch.float32))
        self.embeddings = embeddings
        self.bins = bins
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
        columns = z if self.embeddings is None else self.embeddings(z)
        return columns if self.bins is None else torch.cat([columns, self.bins(z)], dim=1)


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
