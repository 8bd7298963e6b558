"""Label audit: measures label maps, compares them with a reference, names the errors.

    maps = [auditing.examine(labels, K) for labels in stream]  # needs no reference
    found = [auditing.compare(labels, clean, K) for labels, clean in stream]
    auditing.overview(maps), auditing.outliers(maps), auditing.duplicates(maps)
    auditing.transition(np.stack([each.joint for each in found]))
    auditing.verdict(functools.reduce(auditing.add, found)).sentences

`examine` and `compare` run compiled programs on one map at a time. All other functions
compute on the host with the results of these two. A `LabelMap` takes about a kilobyte.
Of the `Comparison`s only the sum and the `joint` of each map are needed.
"""

from metaseg.auditing.comparison import DEPTHS, Comparison, add, compare
from metaseg.auditing.frame import Framed, bucket, framed
from metaseg.auditing.single import LabelMap, examine
from metaseg.auditing.verdict import (
    FAMILIES,
    ErrorKinds,
    Verdict,
    error_kinds,
    evidence,
    verdict,
)
from metaseg.auditing.whole import (
    Duplicates,
    Interval,
    Outliers,
    Overview,
    Transition,
    bootstrap,
    duplicates,
    outliers,
    overview,
    transition,
)

__all__ = [
    "DEPTHS",
    "FAMILIES",
    "Comparison",
    "Duplicates",
    "ErrorKinds",
    "Framed",
    "Interval",
    "LabelMap",
    "Outliers",
    "Overview",
    "Transition",
    "Verdict",
    "add",
    "bootstrap",
    "bucket",
    "compare",
    "duplicates",
    "error_kinds",
    "evidence",
    "examine",
    "framed",
    "outliers",
    "overview",
    "transition",
    "verdict",
]
