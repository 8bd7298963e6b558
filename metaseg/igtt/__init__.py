"""iGTT, iterated ground truth training: segmentation without manual labels.

A network trains for one round and scores every training image. Each score map then
becomes the label of the next round. This package turns scores into labels. Sources:
Luo et al., "Deep Neural Networks Learn Meta-Structures from Noisy Labels in Semantic
Segmentation", AAAI 2022 (arXiv 2103.11594), and its extension "Elucidating
Meta-Structures of Noisy Labels in Semantic Segmentation by Deep Neural Networks"
(arXiv 2205.00160). `update_labels` does this in three or four steps:

    best_mask                  applies the threshold that agrees best with the scores
    orient                     decides which side of the threshold is foreground
    open_masks, fit_boundary   optional: remove small objects, move the boundaries
    target                     selects the pixels of the mask that become the label

The first labels are all background, or come from the image alone:
`update_labels(key, intensity(images), ids, criterion="otsu")`, or the same with
`local_contrast(images)` in place of the intensity.

All functions are pure and treat every map `[..., H, W]` separately. The boolean array
`valid` is false at padding. Padding changes no result, and its label is void. May
import `labels`, `noise`, `density`, `morphology`, `checks`, `errors` and `typing`.
"""

from metaseg.igtt.initial import intensity, local_contrast
from metaseg.igtt.polarity import POLARITIES, orient
from metaseg.igtt.refine import fit_boundary, open_masks
from metaseg.igtt.targets import TARGETS, ems, soft_targets, target
from metaseg.igtt.thresholds import CRITERIA, agreement, best_mask, best_threshold
from metaseg.igtt.update import ema, masks, stability, to_labels, update_labels

__all__ = [
    "CRITERIA",
    "POLARITIES",
    "TARGETS",
    "agreement",
    "best_mask",
    "best_threshold",
    "ema",
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
