"""Response distributions: one file a family, found by name."""

from __future__ import annotations

from glmmnet._registry import Registry
from glmmnet.families._base import Family, Target

FAMILIES: Registry[type[Family]] = Registry("family", "glmmnet.families")


def resolve(family: str | Family) -> Family:
    """The family called `family`, or `family` itself if it is one already.

    Examples
    --------
    >>> from glmmnet.families import resolve
    >>> resolve("gaussian").name
    'gaussian'
    """
    if isinstance(family, Family):
        return family
    if isinstance(family, str):
        return FAMILIES[family.lower()]()
    raise TypeError(
        f"family is {family!r}; write a name ({', '.join(FAMILIES)}) or an instance such as families.Categorical()."
    )


def __getattr__(name: str) -> type[Family]:
    """`families.Categorical` and the other classes, without importing each by hand."""
    if name in FAMILIES._plugins or name.lower() in FAMILIES:
        plugin = FAMILIES[name.lower()]
        if plugin.__name__ == name:
            return plugin
    raise AttributeError(f"glmmnet.families has no {name!r}; families: {', '.join(FAMILIES)}")


__all__ = ["FAMILIES", "Family", "Target", "resolve"]
