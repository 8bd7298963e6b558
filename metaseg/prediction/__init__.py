"""Segmentation of new images with a trained network, from arrays or files.

    predictor = prediction.load("runs/cells")
    first, = prediction.predict(predictor, image)      # first.labels, first.scores

Images of any size are cut into overlapping tiles whose scores are blended, so that the
result does not depend on the tiles; see docs/predict.md. May import everything of
`metaseg` but `report` and `runs`.

    predictor.py    work folder of a run -> network, weights, decision rules
    network.py      compiled programs; how far from a pixel the network looks
    tiles.py        sides of an image -> tiles and their weights
    scores.py       images -> scores, strip by strip; labels
    objects.py      connected components, strip by strip; instance maps
    score_file.py   scores, strip by strip -> a TIFF file
    stablehlo.py    predictor -> one file that runs without metaseg
"""

from metaseg.prediction.network import grain
from metaseg.prediction.objects import (
    Objects,
    add_strip,
    has_instances,
    instance_ids,
    no_objects,
)
from metaseg.prediction.predictor import (
    PREDICTION_RULES,
    Predictor,
    decoder,
    fingerprint,
    from_results,
    load,
)
from metaseg.prediction.score_file import ScoreFile
from metaseg.prediction.scores import Prediction, Strip, fit_channels, predict, strips
from metaseg.prediction.stablehlo import ExportedPredictor, export, load_export

__all__ = [
    "PREDICTION_RULES",
    "ExportedPredictor",
    "Objects",
    "Prediction",
    "Predictor",
    "ScoreFile",
    "Strip",
    "add_strip",
    "decoder",
    "export",
    "fingerprint",
    "fit_channels",
    "from_results",
    "grain",
    "has_instances",
    "instance_ids",
    "load",
    "load_export",
    "no_objects",
    "predict",
    "strips",
]
