"""Errors and warnings that users see. Each names the wrong value and what to write instead."""


class GLMMNetError(Exception):
    """Base of every error raised on purpose by glmmnet."""


class FormulaError(GLMMNetError, ValueError):
    """The formula's text is malformed or asks for something the grammar does not have."""


class DesignError(GLMMNetError, ValueError):
    """The data cannot be brought into the form that the formula or the family asks for."""


class FitError(GLMMNetError, RuntimeError):
    """The estimation cannot go on, e.g. a non-finite likelihood."""


class ConvergenceWarning(UserWarning):
    """The fit ended before its stopping rule was met, or its draws are not to be trusted."""


class DataWarning(UserWarning):
    """Rows were dropped or data were changed in a way the user should know of."""
