"""Every field of iGTT and its default, on top of those of default.py.

    python experiments/igtt.py --config=configs/igtt.py

segments the built-in cells without labels. Training takes `igtt.rounds` times
`igtt.steps_per_round` steps, whatever `training.steps` says; noise is none, as the
labels are made from the network's own scores.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default run."""
    config = default.get_config()
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "constant"
    config.report.images = 24

    config.igtt = ConfigDict()
    # Labels of the first round: "black", or Otsu's cut of what the image alone says,
    # "intensity" or "contrast" (to the surroundings, of `coarse` pixels).
    config.igtt.start = "contrast"
    config.igtt.sigma_coarse = 16.0  # above an object's radius
    # What is kept of a mask as a label: "ems", "sample", "mask", "random".
    config.igtt.target = "mask"
    config.igtt.radius = 1  # ems, random: pixels that a point of the skeleton moves
    config.igtt.fraction = 0.1  # all but mask: share of the points that is kept
    config.igtt.target_sigma = (
        0.0  # bandwidth of the density that labels become; 0: hard ones
    )
    # How scores are read, in training and after it.
    config.igtt.criterion = "otsu"  # "dmi", "iou", "bce"
    config.igtt.num_thresholds = 30  # cuts
    config.igtt.polarity = "smaller"  # "brighter", "darker", "none"
    config.igtt.min_radius = 0  # radius of the smallest object, pixels; 0: any
    # Moves boundaries to the middle of the step in intensity, local means being taken
    # with this bandwidth in pixels; 0: leaves them.
    config.igtt.boundary_sigma = 0.0
    config.igtt.ema_decay = 0.0  # decay of the scores' mean over rounds; 0: each alone
    config.igtt.rounds = 13
    config.igtt.steps_per_round = 32
    config.igtt.reinitialise = False  # True: fresh weights each round
    # Stops when masks change less: their mean IoU with the round before; 0: never.
    config.igtt.stop_stability = 0.0
    # "none": no label is read; "measure": those of validation and test images, to say
    # how good the masks are; "choose": the round with the best validation Dice is kept.
    config.igtt.labels = "measure"
    return config
