"""Every field of a run's config with its default, and what config files share.

`get_config` has the fields of training, `get_igtt_config` those of segmenting without
labels; the comments say what each field means. A config file changes a few fields and
may take arguments:

    def get_config(arg: str = "") -> ConfigDict:
        arguments = defaults.parse_arg(arg, paper=False)
        config = defaults.get_config()
        config.data.name = "tissue"
        config.data.num_classes = 4
        if arguments.paper:
            config = defaults.paper(config)
        return defaults.set_noise(config, arguments)

so that `FILE.py:noise=flip,rate=0.4` and `FILE.py:paper` work. Imports no jax: the
command line reads configs before it starts jax.
"""

import ast
from typing import Any

from ml_collections import ConfigDict, config_dict

from metaseg.errors import InputError

__all__ = [
    "get_config",
    "get_igtt_config",
    "paper",
    "parse_arg",
    "set_noise",
    "symmetric",
]


def get_config() -> ConfigDict:
    """Returns the default config: clean labels of the built-in cells.

    Any field can be set on the command line, such as `--config.model.width=16`. A field
    that takes one value or one per class takes a tuple too:
    `--config.noise.rate="(0.1, 0.4)"`. `loss`, `data.name`, `noise.name` and
    `model.name` also take a plug-in, `"package.module:name"`.
    """
    config = ConfigDict()
    config.seed = 0  # weights, order of the examples and augmentation
    config.loss = "cross_entropy"

    config.data = ConfigDict()
    config.data.name = "cells"  # a built-in family, "folder" or "prepared"
    config.data.num_classes = 2
    # Built-in families: seed, size and number of the images.
    config.data.seed = 0
    config.data.height = 128
    config.data.width = 128
    config.data.train_size = 256
    config.data.val_size = 32
    config.data.test_size = 64
    config.data.endless = False  # True: new images every step, rendered on device
    # "folder": dir holds {train,val,test}/{images,labels}/NAME.(png|tif|npy);
    # "prepared": dir is the --data_dir of `metaseg prepare`.
    config.data.dir = ""
    config.data.dataset = ""  # "prepared": the data set in dir, "source/config"
    config.data.normalize = "zscore"  # "percentile": of each image; "fixed", "none"
    config.data.mean = config_dict.placeholder(object)  # fixed: (image - mean) / std
    config.data.std = config_dict.placeholder(object)
    config.data.memory_gb = 1.0  # larger data sets are streamed to the device
    config.data.workers = 0  # processes that read from disk; 0: threads

    # How image and label files are read ("folder", "images"); the same fields are flags
    # of `metaseg prepare`, `predict` and `audit`. docs/data.md describes them.
    config.files = ConfigDict()
    config.files.channels = config_dict.placeholder(object)  # 0, "DAPI", (0, 2); all
    config.files.page = config_dict.placeholder(int)  # of files with several; all
    config.files.apply_orientation = False  # True: turn images as their tag says
    config.files.image_suffix = config_dict.placeholder(str)  # of names: "_img"
    config.files.label_suffix = config_dict.placeholder(str)  # "_mask" etc. are known
    config.files.label_values = config_dict.placeholder(object)  # "1-65535=1,*=255"
    config.files.label_colors = config_dict.placeholder(object)  # "#dc143c=1" or file
    config.files.label_threshold = config_dict.placeholder(float)  # soft masks: 128
    config.files.from_alpha = False  # True: label maps are in the alpha channel
    config.files.instances = ""  # foreground of ids 1..N: "union", "border", "void"

    # `metaseg noise` lists every noise with its parameters and their defaults. A
    # parameter that is None here is not passed to the noise.
    config.noise = ConfigDict()
    config.noise.name = "none"
    config.noise.seed = 0
    config.noise.online = False  # True: new noise in each step
    for parameter in (
        "rate",  # flip, omit, add, merge: a share; one number or one per class
        "fraction",  # sample: share of each class that is kept
        "classes",  # sample: classes sampled, all but 0; only: classes it changes
        "fill",  # class id of pixels whose label is lost, or 255 (void)
        "exact",  # sample, flip: exact counts rather than independent pixels
        "matrix",  # transition: K rows of K that sum to 1
        "prior",  # random: foreground probability, or one per class
        "radius",  # dilate, erode, random_boundary, shift_pixels, merge, ...: pixels
        "shape",  # dilate, erode: "disk", "square", "cross"
        "per",  # random_boundary: "image", "object"
        "steps",  # markov: number of moves of the boundary
        "theta1",  # markov: probability that it moves outwards
        "theta2",  # markov: probability that a boundary pixel flips
        "theta3",  # markov: probability that any pixel flips in the end
        "blur",  # markov: standard deviation in pixels
        "factor",  # coarsen: side of a block in pixels
        "shift",  # translate, affine: largest, in pixels
        "angle",  # affine: largest, in degrees
        "scale",  # affine: largest relative change
        "shear",  # affine: largest, in degrees
        "amplitude",  # elastic: root mean square displacement in pixels
        "wavelength",  # elastic: shortest, in pixels
        "sigma",  # jitter_vertices: standard deviation in pixels
        "tolerance",  # jitter_vertices, simplify: pixels
        "count",  # points: number of points of an object
        "background",  # points, scribbles: number in the background
        "length",  # scribbles: length in pixels
        "noises",  # chain, choose, only: ({"name": ..., ...}, ...)
        "weights",  # choose: odds of each
        "parameters",  # plug-ins: mapping of more parameters, {"strength": 2}
    ):
        config.noise[parameter] = config_dict.placeholder(object)

    config.augment = ConfigDict()
    # Side in pixels; 0: whole images; None: 64, or the smallest side of an image.
    config.augment.crop = 64
    config.augment.flip = True
    config.augment.rot90 = True  # rotate by quarter turns
    config.augment.horizontal_flip_only = False  # True: only left-right (streets)
    config.augment.brightness = 0.2  # added; in units of the normalised image
    config.augment.contrast = 0.2
    config.augment.illumination = 0.0  # uneven light, added; in the same units; 0 = off
    config.augment.modulation = 0.0  # uneven light, multiplied; of its logarithm

    config.model = ConfigDict()
    config.model.name = "unet"
    config.model.width = 8
    config.model.depth = 3  # poolings; the source's networks: width 64, depth 4
    config.model.norm = "batch"  # "group", "none"
    config.model.dtype = "float32"  # "bfloat16": of the computation, not the weights
    config.model.init = "he"

    config.optimizer = ConfigDict()
    # Flips at rate r scale the mean gradient by 1 - 2 r; Muon and Adam are invariant to
    # scale. docs/benchmarks.md compares them under noise ("Time to a good network").
    config.optimizer.name = "muon"  # "adam", "adamw", "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.momentum = 0.8  # muon, sgd
    config.optimizer.nesterov = False  # sgd
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip = 0.0  # largest gradient norm; 0 = off
    config.optimizer.schedule = "cosine"  # "constant", "step"
    config.optimizer.warmup = 0  # steps
    config.optimizer.step_every = 500  # "step": steps between two decays
    config.optimizer.step_epochs = 0.0  # "step": the same in epochs; 0: step_every
    config.optimizer.step_factor = 0.1
    config.optimizer.ema_decay = 0.97  # decay of the weights' moving average; 0 = off

    config.training = ConfigDict()
    config.training.steps = 300
    config.training.epochs = 0.0  # length in epochs; 0: the length is steps
    config.training.batch_size = 16
    config.training.eval_batch_size = 8
    config.training.grad_accum_steps = 1  # parts of a batch, to save memory
    config.training.steps_per_dispatch = 0  # 0: chosen for the device
    config.training.log_every = 20  # steps between two training losses
    config.training.eval_every = 100  # steps between two validations
    config.training.checkpoint_every = 0  # steps; 0: at every validation
    # Weights that a run measures, predicts with and exports: "last", or "best", those
    # of the best validation (of equals the latest; the last if all are equal).
    config.training.weights = "last"
    # Work folder of a run whose weights training starts from; "": random weights.
    config.training.init_from = ""

    config.parallel = ConfigDict()
    config.parallel.partitioner = "jit"  # over a mesh of devices; or "pmap"
    config.parallel.devices = 0  # number of devices; 0: all
    config.parallel.ensemble = 1  # independent runs, trained side by side
    # Fields in which the runs differ: ((field, (a value for each run)), ...), such as
    # (("noise.rate", (0.1, 0.2)), ("seed", (0, 1))); None: both seeds count up.
    config.parallel.vary = config_dict.placeholder(object)
    config.parallel.ensemble_by = ""  # "vmap", "turns"; "": chosen for the device

    config.report = ConfigDict()
    config.report.images = 100  # largest number of test images shown
    return config


def get_igtt_config() -> ConfigDict:
    """Returns the default config of iGTT: built-in cells, segmented without labels.

    It has the fields of `get_config` and `config.igtt`. Training takes `igtt.rounds`
    times `igtt.steps_per_round` steps, whatever `training.steps` says; the noise is
    "none", as the labels are made from the network's own scores.
    """
    config = get_config()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "constant"
    config.report.images = 24

    config.igtt = ConfigDict()
    # Labels of the first round: "black", or Otsu's threshold of the image alone: of its
    # "intensity", or of its "contrast" to the surroundings within sigma_coarse pixels.
    config.igtt.start = "contrast"
    config.igtt.sigma_coarse = 16.0  # pixels; above an object's radius
    # Part of a mask that becomes the label: "ems", "sample", "mask", "random".
    config.igtt.target = "mask"
    config.igtt.radius = 1  # ems, random: pixels that a point of the skeleton moves
    config.igtt.fraction = 0.1  # all but mask: share of the points that is kept
    # Bandwidth in pixels of the density that labels become; 0: labels stay 0 and 1.
    config.igtt.target_sigma = 0.0
    # How scores become masks, during training and after it.
    config.igtt.criterion = "otsu"  # "dmi", "iou", "bce"
    config.igtt.num_thresholds = 30
    config.igtt.polarity = "smaller"  # "brighter", "darker", "none"
    config.igtt.min_radius = 0  # radius of the smallest object, pixels; 0: any
    # Moves boundaries to the middle of the step in intensity; local means are taken
    # with this bandwidth in pixels. 0: boundaries are not moved.
    config.igtt.boundary_sigma = 0.0
    config.igtt.ema_decay = 0.0  # of the moving average of scores over rounds; 0: off
    config.igtt.rounds = 13
    config.igtt.steps_per_round = 32
    config.igtt.reinitialise = False  # True: fresh weights each round
    # Stops once the mean IoU of masks with those of the round before reaches this; 0:
    # never.
    config.igtt.stop_stability = 0.0
    # "none": no label is read; "measure": labels of validation and test images are read
    # to measure the masks; "choose": the round of the best validation Dice is kept.
    config.igtt.labels = "measure"
    return config


def paper(config: ConfigDict) -> ConfigDict:
    """Sets network, optimiser and length as the source does (AAAI 2022).

    The source trains a U-Net of width 64 with four poolings, whose weights are drawn
    with standard deviation 0.02. It uses SGD with momentum 0.9, weight decay 1e-3 and a
    learning rate of 0.05 that is multiplied by 0.1 every 20 of 100 epochs. A batch has
    32 windows of 256 x 256 pixels; each image is standardised by itself. The source
    augments its images beforehand (rotation up to 45 degrees, shifts, blur); here the
    device crops, flips and rotates by quarter turns, and varies brightness and
    contrast.

    Args:
      config: Config with the fields of `get_config`; it is changed.

    Returns:
      The same config.
    """
    config.data.normalize = "zscore"
    config.augment.crop = 256
    config.augment.brightness = 0.3
    config.augment.contrast = 0.3
    config.model.width = 64
    config.model.depth = 4
    config.model.init = "normal"
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-3
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule = "step"
    config.optimizer.step_epochs = 20.0
    config.optimizer.step_factor = 0.1
    config.optimizer.ema_decay = 0.0
    config.training.epochs = 100.0
    config.training.batch_size = 32
    config.training.eval_batch_size = 8
    return config


def symmetric(num_classes: int, rate: float | None) -> tuple[tuple[float, ...], ...]:
    """Returns the transition matrix of symmetric noise.

    Args:
      num_classes: Number of classes K.
      rate: Probability in [0, 1] that a pixel changes its class; all other classes are
        equally likely.

    Returns:
      K rows of K probabilities; each row sums to 1.

    Raises:
      InputError: If `rate` is no number in [0, 1].
    """
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if rate is None or not number or not 0 <= rate <= 1:
        raise InputError(f"rate: got {rate!r}, expected a number in [0, 1]")
    other = rate / (num_classes - 1)
    return tuple(
        tuple(1 - rate if j == i else other for j in range(num_classes))
        for i in range(num_classes)
    )


def parse_arg(arg: str, **defaults: Any) -> ConfigDict:
    """Parses the arguments of a config file, the text after the colon.

    Every config file takes `noise=NAME` and any field of `config.noise`, such as
    `rate=0.4`; `defaults` adds arguments of its own.

    Args:
      arg: Arguments separated by commas. `NAME=VALUE` sets an argument to a Python
        literal, or to a string if it is none; commas inside brackets belong to the
        value. `NAME` alone sets it to True.
      **defaults: More arguments and their default values. A given value must be of the
        type of the default.

    Returns:
      A config of `defaults` with the given arguments, and of the given fields of
      `config.noise`.

    Raises:
      InputError: If an argument is unknown or repeated, or its value is of the wrong
        type.

    Example:
      >>> arguments = parse_arg("noise=flip,rate=0.4,paper", paper=False)
      >>> sorted(arguments.items())
      [('noise', 'flip'), ('paper', True), ('rate', 0.4)]
    """
    expected = {"noise": "", **defaults}
    fields = [name for name in get_config().noise if name != "name"]
    given: dict[str, Any] = {}
    for part in _split(arg):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if name not in expected and name not in fields:
            known = [
                f"{known}=..." if not isinstance(default, bool) else known
                for known, default in expected.items()
            ]
            raise InputError(
                f"'{part}': no such argument, expected {', '.join(known)} or a field "
                f"of config.noise ({', '.join(fields)})"
            )
        if name in given:
            raise InputError(f"'{part}': got argument {name} twice, expected it once")
        value = _value(text) if equals else True
        if name in expected and type(value) is not type(expected[name]):
            kind = {bool: "True or False", str: "a name"}.get(
                type(expected[name]), f"a value like {expected[name]!r}"
            )
            raise InputError(f"{name}: got '{part}', expected {kind}")
        if name not in expected and (value is True and not equals):
            raise InputError(f"{name}: got no value, expected {name}=VALUE")
        given[name] = value
    return ConfigDict(defaults | given, convert_dict=False)


def set_noise(config: ConfigDict, arguments: ConfigDict) -> ConfigDict:
    """Sets the noise that the arguments of a config file name.

    Without `noise` in the arguments, `config.noise` keeps its name. Two arguments are
    short for something long: `noise=symmetric,rate=R` is the noise `transition` with
    the matrix of `symmetric`, and `classes=all` means all classes.

    Args:
      config: Config with the fields of `get_config`; it is changed.
      arguments: Result of `parse_arg`.

    Returns:
      The same config.

    Raises:
      InputError: If `noise=symmetric` comes without a valid rate.
    """
    num_classes = config.data.num_classes
    for name, value in arguments.items():
        if name in config.noise:
            if name == "classes" and value == "all":
                value = tuple(range(num_classes))
            config.noise[name] = value
    name = arguments.get("noise")
    if name == "symmetric":
        config.noise.matrix = symmetric(num_classes, arguments.get("rate"))
        config.noise.rate = None
        name = "transition"
    if name is not None:
        config.noise.name = name
    return config


def _split(arg: str) -> list[str]:
    """Parts of a text between the commas that are in no brackets."""
    parts, depth = [""], 0
    for character in arg:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _value(text: str) -> Any:
    """A Python literal, or the text itself if it is none."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
