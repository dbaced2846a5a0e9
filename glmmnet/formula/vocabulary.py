"""The names that an expression may use besides data columns and what the user passes in ``context=``."""

from __future__ import annotations

from glmmnet._registry import plugin_modules


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _words(
    """log log2 log10 log1p exp expm1 sqrt abs min max round int float str len
    bs cr cc poly scale center standardize C I Treatment Sum Helmert Diff Poly"""
)

NUMPY = _words(
    """abs absolute fabs sign sqrt cbrt square power reciprocal exp exp2 expm1 log log2 log10 log1p logaddexp
    sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh hypot deg2rad rad2deg
    degrees radians floor ceil trunc rint round clip minimum maximum fmin fmax mod fmod remainder floor_divide
    where isin isfinite isnan isinf logical_and logical_or logical_not logical_xor heaviside
    float64 float32 int64 int32 bool_ pi e inf nan"""
)

CONTRASTS = _words("treatment SAS sum helmert diff poly")

NAMESPACES = {"np": NUMPY, "contr": CONTRASTS}

METHODS = _words(
    """str dt lower upper strip title capitalize len contains startswith endswith slice zfill
    year month day hour minute second quarter dayofweek dayofyear weekday date
    abs clip round astype isin between isna notna"""
)

INSTEAD = {
    "s": "bs(x, df=...), cr(x, df=...) or nn(x)",
    "te": "nn(x1 + x2)",
    "ti": "nn(x1 + x2)",
    "t2": "nn(x1 + x2)",
    "ns": "cr(x, df=...)",
    "cs": "cr(x, df=...), or cs(effects | group) for compound symmetry",
    "lo": "bs(x, df=...) or nn(x)",
    "factor": "C(x)",
    "as.factor": "C(x)",
    "ordered": "C(x)",
    "relevel": "C(x, contr.treatment(base=...))",
    "weights": "the argument weights=",
}

#: Words before ``(effects | group)``: the covariance structures, each a module of its name.
COVARIANCES = plugin_modules("glmmnet.covariances")

REDUCTIONS = _words("mean std var median sum min max amin amax quantile percentile nanmean nanstd")
