"""Response distributions: one file a family, found by name."""

from __future__ import annotations

from collections.abc import Mapping

from glmmnet._registry import Registry
from glmmnet.errors import FormulaError
from glmmnet.families._base import Family, Tails, Target
from glmmnet.families._dispersion import ModelledDispersion

#: What a family lacks for which a formula of that part is given.
_MISSING_PART = {
    "zi": "has no zero part; use a zero-inflated or hurdle family, e.g. family='zeroinflatedpoisson'",
    "dispersion": "has no dispersion to be modelled",
}

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


def with_formulas(family: Family, formulas: Mapping[str, str | None]) -> tuple[Family, dict[str, str]]:
    """The family that reads the further formulas given, and those formulas, each with its default where None.

    With a formula of the dispersion it is the family with log phi as one more linear predictor.

    Raises
    ------
    FormulaError
        A formula is given for a part that the family does not have.
    """
    if formulas.get("dispersion") is not None and family.has_dispersion:
        family = ModelledDispersion(family)
    for name, text in formulas.items():
        if name not in family.formulas and text is not None:
            raise FormulaError(f"{name}= is given, but family {family.name!r} {_MISSING_PART[name]}.")
    # A part that nobody may give a formula for, such as degrees of freedom, has an intercept.
    return family, {name: formulas.get(name) or "~ 1" for name in family.formulas}


def __getattr__(name: str) -> type[Family]:
    """`families.Categorical` and the other classes, without importing each by hand."""
    if name in FAMILIES._plugins or name.lower() in FAMILIES:
        plugin = FAMILIES[name.lower()]
        if plugin.__name__ == name:
            return plugin
    raise AttributeError(f"glmmnet.families has no {name!r}; families: {', '.join(FAMILIES)}")


__all__ = ["FAMILIES", "Family", "Tails", "Target", "resolve", "with_formulas"]
