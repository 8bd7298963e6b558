"""Segmenting new images with a trained run, as a function of arrays or paths.

    run = prediction.load("runs/cells")
    first, = prediction.predict(run, image)        # first.labels, first.scores

Images of any size are cut into overlapping tiles and their scores blended, so that the
result does not depend on the tiles; see docs/predict.md. May import everything of
`metaseg` but `report`.

    run.py       a run's work folder -> network, weights, decision rules
    network.py   compiled programs; how far a pixel is seen
    tiles.py     sides of an image -> tiles and their weights
    scores.py    images -> scores, strip by strip; labels
    objects.py   connected components, strip by strip
"""

from metaseg.prediction.objects import Objects, add_strip, no_objects
from metaseg.prediction.run import (
    DECISION_RULES,
    Run,
    decision_rule,
    fingerprint,
    load,
)
from metaseg.prediction.scores import Prediction, Strip, fit_channels, predict, strips

__all__ = [
    "DECISION_RULES",
    "Objects",
    "Prediction",
    "Run",
    "Strip",
    "add_strip",
    "decision_rule",
    "fingerprint",
    "fit_channels",
    "load",
    "no_objects",
    "predict",
    "strips",
]
