"""The label audit's numbers: what labels still teach, and what is wrong with them.

    maps = [audit.examine(labels, K) for labels in stream]      # no reference needed
    pairs = [audit.compare(labels, clean, K) for ... in stream]
    audit.overview(maps), audit.outliers(maps), audit.duplicates(maps)
    audit.transition(np.stack([pair.joint for pair in pairs]))
    audit.verdict(functools.reduce(audit.add, pairs)).words

`examine` and `compare` run compiled programs on one map at a time; everything else is
host arithmetic on what they left, which is small: a `LabelMap` is a kilobyte, and of a
`Pair` only the sum and each map's `joint` need be kept.
"""

from metaseg.audit.frame import Framed, bucket, framed
from metaseg.audit.pair import DEPTHS, Pair, add, compare
from metaseg.audit.single import LabelMap, examine
from metaseg.audit.verdict import (
    FAMILIES,
    Split,
    Verdict,
    evidence,
    split,
    verdict,
)
from metaseg.audit.whole import (
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
    "Duplicates",
    "Framed",
    "Interval",
    "LabelMap",
    "Outliers",
    "Overview",
    "Pair",
    "Split",
    "Transition",
    "Verdict",
    "add",
    "bootstrap",
    "bucket",
    "compare",
    "duplicates",
    "evidence",
    "examine",
    "framed",
    "outliers",
    "overview",
    "split",
    "transition",
    "verdict",
]
