"""What a shipped data set says about itself, and the registry of those that exist."""

from __future__ import annotations

from dataclasses import dataclass

from glmmnet._registry import Registry


@dataclass(frozen=True)
class Dataset:
    """What a shipped data set is.

    Attributes
    ----------
    name : str
        What `load` is called with.
    title : str
        One line.
    source : str
        Where the rows come from.
    licence : str
        SPDX identifier.
    columns : dict of str to (str, str)
        Column -> (dtype to read it with, meaning with its unit), in the file's order.
    """

    name: str
    title: str
    source: str
    licence: str
    columns: dict[str, tuple[str, str]]

    def __str__(self) -> str:
        width = max(map(len, self.columns))
        rows = "\n".join(f"  {column:<{width}}  {meaning}" for column, (_, meaning) in self.columns.items())
        return f"{self.name}: {self.title}\nSource: {self.source}\nLicence: {self.licence}\n{rows}"


REGISTRY: Registry[Dataset] = Registry("data set", "glmmnet.datasets")
