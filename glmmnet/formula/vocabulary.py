"""The names that an expression may use besides data columns and what the user passes in ``context=``."""

from __future__ import annotations

FUNCTIONS = frozenset(
    """log log2 log10 log1p exp expm1 sqrt abs min max round int float str len
    bs cr cc poly scale center standardize C I Treatment Sum Helmert Diff Poly""".split()
)

NUMPY = frozenset(
    """abs absolute fabs sign sqrt cbrt square power reciprocal exp exp2 expm1 log log2 log10 log1p logaddexp
    sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh hypot deg2rad rad2deg
    degrees radians floor ceil trunc rint round clip minimum maximum fmin fmax mod fmod remainder floor_divide
    where isin isfinite isnan isinf logical_and logical_or logical_not logical_xor heaviside
    float64 float32 int64 int32 bool_ pi e inf nan""".split()
)

CONTRASTS = frozenset("treatment SAS sum helmert diff poly".split())

NAMESPACES = {"np": NUMPY, "contr": CONTRASTS}

METHODS = frozenset(
    """str dt lower upper strip title capitalize len contains startswith endswith slice zfill
    year month day hour minute second quarter dayofweek dayofyear weekday date
    abs clip round astype isin between isna notna""".split()
)

INSTEAD = {
    "s": "bs(x, df=...), cr(x, df=...) or nn(x)",
    "te": "nn(x1 + x2)",
    "ti": "nn(x1 + x2)",
    "t2": "nn(x1 + x2)",
    "ns": "cr(x, df=...)",
    "cs": "cr(x, df=...)",
    "lo": "bs(x, df=...) or nn(x)",
    "factor": "C(x)",
    "as.factor": "C(x)",
    "ordered": "C(x)",
    "relevel": "C(x, contr.treatment(base=...))",
    "weights": "the argument weights=",
}

COVARIANCES = ("us", "diag", "cs", "ar1")

REDUCTIONS = frozenset("mean std var median sum min max amin amax quantile percentile nanmean nanstd".split())
