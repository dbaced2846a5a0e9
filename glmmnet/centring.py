"""Columns of an unstructured random term taken free of the columns before them: the model in which it is estimated.

With a free Sigma the likelihood is the same for x and for x - c in ``(x | g)``, but far from 0, as years are, the
intercept's effects are those at x = 0: their variance is huge and their correlation with the slopes near -1, where EM
crawls and Newton's method is lost. Estimates, draws and errors are turned back into the columns that were given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters
from glmmnet.random_terms import TermData

#: A column is left as it is if less than this share of it is its own, and if no other's share in it is larger.
_OWN, _SHARE = 1e-11, 1e-12


@dataclass(frozen=True)
class Centring:
    """A model, and what turns its random effects b' into those b of the columns that were given: b = root b'.

    Attributes
    ----------
    joint : JointModel
        With columns z' = z root in each term.
    roots : tuple of Tensor (r, r) or None
        Of each term, unit upper triangular; None where nothing changes.
    """

    joint: JointModel
    roots: tuple[Tensor | None, ...]

    @property
    def changes(self) -> bool:
        """Whether any column differs."""
        return any(root is not None for root in self.roots)

    def outward(self, params: Parameters) -> Parameters:
        """Parameters of the given columns from those of `joint`."""
        sigma = tuple(
            own if root is None else root @ own @ root.T for own, root in zip(params.sigma, self.roots, strict=True)
        )
        return replace(params, sigma=sigma)

    def outward_effects(self, b: Tensor) -> Tensor:
        """Effects (Q, ...) of the given columns from those of `joint`; in double precision, as they cancel in eta."""
        return self._turned(b, list(self.roots))

    def inward_effects(self, b: Tensor) -> Tensor:
        """Effects (Q, ...) of `joint` from those of the given columns."""
        return self._turned(b, [None if root is None else torch.linalg.inv(root) for root in self.roots])

    def _turned(self, b: Tensor, matrices: list[Tensor | None]) -> Tensor:
        if not self.changes:
            return b
        out = b.to(torch.float64, copy=True)
        for term, matrix in zip(self.joint.terms, matrices, strict=True):
            if matrix is not None:
                own = out[term.rows].reshape(term.q, term.r, -1)
                out[term.rows] = (matrix @ own).reshape(-1, *b.shape[1:])
        return out


def centring(joint: JointModel) -> Centring:
    """The model in which `joint` is estimated."""
    roots = tuple(_root(term) for term in joint.terms)
    terms = [
        term if root is None else term.on(term.index.numpy(), (term.columns() @ root).numpy())
        for term, root in zip(joint.terms, roots, strict=True)
    ]
    return Centring(replace(joint, terms=tuple(terms)) if any(r is not None for r in roots) else joint, roots)


def _root(term: TermData) -> Tensor | None:
    """What takes out of each column its regression on the columns before it that add to the same linear predictors."""
    if term.structure != "us" or term.r == 1:
        return None
    z, root = term.columns(), torch.eye(term.r, dtype=torch.float64)
    for k in range(1, term.r):
        before = [j for j in range(k) if term.loading is None or bool((term.loading[j] == term.loading[k]).all())]
        share = torch.linalg.lstsq(z[:, before], z[:, k : k + 1], driver="gelsd").solution
        left = torch.linalg.vector_norm(z[:, k : k + 1] - z[:, before] @ share)
        if left > _OWN * torch.linalg.vector_norm(z[:, k]):
            # Of the columns as they were given: z' = z root.
            root[before, k] = -share[:, 0]
    size = term.size
    return root if bool(((root - torch.eye(term.r)).abs() * size[:, None] > _SHARE * size).any()) else None
