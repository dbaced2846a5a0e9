"""Response distributions: one file a family, found by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glmmnet._registry import Registry
from glmmnet.errors import FitError, FormulaError
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


def family_to_dict(family: Family) -> dict[str, Any]:
    """Name and options of a family, from which :func:`family_from_dict` makes it again.

    Raises
    ------
    FitError
        It is none of the registered ones.
    """
    modelled = isinstance(family, ModelledDispersion)
    own = family.family if isinstance(family, ModelledDispersion) else family
    if own.name not in FAMILIES or type(own) is not FAMILIES[own.name]:
        raise FitError(f"{own!r} is a family of your own, which cannot be saved without its code.")
    return {"name": own.name, "options": own.options, "modelled_dispersion": modelled}


def family_from_dict(stored: Mapping[str, Any]) -> Family:
    """The family that :func:`family_to_dict` was given."""
    own = FAMILIES[stored["name"]](**stored["options"])
    return ModelledDispersion(own) if stored["modelled_dispersion"] else own


def __getattr__(name: str) -> type[Family]:
    """`families.Categorical` and the other classes, without importing each by hand."""
    if name in FAMILIES._plugins or name.lower() in FAMILIES:
        plugin = FAMILIES[name.lower()]
        if plugin.__name__ == name:
            return plugin
    raise AttributeError(f"glmmnet.families has no {name!r}; families: {', '.join(FAMILIES)}")


def __dir__() -> list[str]:
    """What is written here, and the classes of all families."""
    return sorted({*globals(), *(FAMILIES[name].__name__ for name in FAMILIES)})


__all__ = [
    "FAMILIES",
    "Family",
    "ModelledDispersion",
    "Tails",
    "Target",
    "family_from_dict",
    "family_to_dict",
    "resolve",
    "with_formulas",
]
