"""iGTT: segmentation without labels, by labels that a network's own scores give.

Train for a round, score every training image, turn each score map into the next round's
label, repeat. Here is the turn from scores to labels, METHOD's iterated ground truth
(Luo et al., "Deep Neural Networks Learn Meta-Structures from Noisy Labels in Semantic
Segmentation", AAAI 2022): the best of some cuts (`best_mask`), which side of it is
foreground (`orient`), and what is kept of that mask (`target`); `update_labels` does
all three. Where something is known of the objects, `open_masks` drops what is smaller
and `fit_boundary` moves boundaries to where the intensity changes. Labels to start from
are all black, or the same turn applied to what the image alone says,
`update_labels(key, intensity(images), ids, criterion="otsu")`, or
`local_contrast(images)` in place of the intensity.

Pure functions of maps `[..., H, W]`, each image by itself. `valid`, boolean, is false
where a pixel is padding: it counts in nothing and its label is void. May import
`labels`, `noise`, `density`, `morphology`, `checks` and `errors`.
"""

from metaseg.igtt.initial import intensity, local_contrast
from metaseg.igtt.polarity import POLARITIES, orient
from metaseg.igtt.refine import fit_boundary, open_masks
from metaseg.igtt.targets import TARGETS, ems, soft_targets, target
from metaseg.igtt.thresholds import CRITERIA, agreement, best_mask, best_threshold
from metaseg.igtt.update import (
    average,
    masks,
    stability,
    to_labels,
    update_labels,
)

__all__ = [
    "CRITERIA",
    "POLARITIES",
    "TARGETS",
    "agreement",
    "average",
    "best_mask",
    "best_threshold",
    "ems",
    "fit_boundary",
    "intensity",
    "local_contrast",
    "masks",
    "open_masks",
    "orient",
    "soft_targets",
    "stability",
    "target",
    "to_labels",
    "update_labels",
]
