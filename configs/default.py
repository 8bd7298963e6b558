"""Every field of a run and its default; the other configs change a few of them.

    python experiments/main.py --config=configs/default.py

trains on the clean labels of the built-in cells. Any field can be set on the command
line, `--config.model.width=16`; a field that takes one value or one per class takes a
tuple too, `--config.noise.rate="(0.1, 0.4)"`.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """The default run."""
    config = ConfigDict()
    config.seed = 0  # weights, order of the examples and augmentation
    config.loss = "cross_entropy"

    config.data = ConfigDict()
    config.data.name = "cells"  # a built-in family, "folder" or "prepared"
    config.data.num_classes = 2
    # Built-in families: how many images of which size, drawn from which seed.
    config.data.seed = 0
    config.data.height = 128
    config.data.width = 128
    config.data.train_size = 256
    config.data.val_size = 32
    config.data.test_size = 64
    config.data.endless = False  # True: new images every step, rendered on device
    # "folder": <dir>/{train,val,test}/{images,labels}/NAME.(png|tif|npy);
    # "prepared": what experiments/prepare.py wrote, dir its --data_dir.
    config.data.dir = ""
    config.data.dataset = ""  # which of them in dir: "source/config"
    config.data.normalize = "zscore"  # "percentile": of each image; "fixed", "none"
    config.data.mean = config_dict.placeholder(object)  # fixed: (image - mean) / std
    config.data.std = config_dict.placeholder(object)
    config.data.memory_gb = 1.0  # what needs no more is kept on the device
    config.data.workers = 0  # processes that read from disk; 0: threads

    # `python -m metaseg.noise` lists every noise, what it takes and its defaults; what
    # is None here is not given.
    config.noise = ConfigDict()
    config.noise.name = "none"
    config.noise.seed = 0
    config.noise.online = False  # True: drawn anew each step
    for parameter in (
        "rate",  # flip, omit, add, merge: a share; one number or one per class
        "fraction",  # sample: share of each class that is kept
        "classes",  # sample: which classes; default all but 0. only: which it sees
        "fill",  # what takes the place of what is lost: a class id, or 255 (void)
        "exact",  # sample, flip: exact counts rather than independent pixels
        "matrix",  # transition: K rows of K that sum to 1
        "prior",  # random: foreground probability, or one per class
        "radius",  # dilate, erode, random_boundary, shift_pixels, merge, ...: pixels
        "shape",  # dilate, erode: "disk", "square", "cross"
        "per",  # random_boundary: "image", "object"
        "steps",  # markov: how often the boundary moves
        "theta1",  # markov: probability that it moves outwards
        "theta2",  # markov: probability that a boundary pixel flips
        "theta3",  # markov: probability that any pixel flips in the end
        "blur",  # markov: standard deviation in pixels
        "factor",  # coarsen: pixels a side of a block
        "shift",  # translate, affine: pixels at most
        "angle",  # affine: degrees at most
        "scale",  # affine: relative change at most
        "shear",  # affine: degrees at most
        "amplitude",  # elastic: root mean square displacement in pixels
        "wavelength",  # elastic: shortest, in pixels
        "sigma",  # jitter_vertices: standard deviation in pixels
        "tolerance",  # jitter_vertices, simplify: pixels
        "count",  # points: of each object
        "background",  # points, scribbles: how many there
        "length",  # scribbles: pixels
        "noises",  # chain, choose, only: ({"name": ..., ...}, ...)
        "weights",  # choose: odds of each
    ):
        config.noise[parameter] = config_dict.placeholder(object)

    config.augment = ConfigDict()
    config.augment.crop = 64  # pixels a side; 0 = whole images
    config.augment.flip = True
    config.augment.rot90 = True  # by quarters
    config.augment.horizontal_flip_only = False  # True: flip left-right alone (streets)
    config.augment.brightness = 0.2  # added; in units of the normalised image
    config.augment.contrast = 0.2
    config.augment.illumination = 0.0  # uneven light, added; in the same units; 0 = off
    config.augment.modulation = 0.0  # uneven light, a factor: of its logarithm

    config.model = ConfigDict()
    config.model.name = "unet"
    config.model.width = 8
    config.model.depth = 3  # poolings; the source's networks: width 64, depth 4
    config.model.norm = "batch"  # "group", "none"
    config.model.dtype = "float32"  # "bfloat16": of the computation, not the weights
    config.model.init = "he"

    config.optimizer = ConfigDict()
    # Flips at rate r shrink the gradient's signal by 1 - 2 r; Adam does not mind.
    config.optimizer.name = "adam"  # "adamw", "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.momentum = 0.9  # sgd
    config.optimizer.nesterov = False  # sgd
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip = 0.0  # largest gradient norm; 0 = off
    config.optimizer.schedule = "cosine"  # "constant", "step"
    config.optimizer.warmup = 0  # steps
    config.optimizer.step_every = 500  # "step": steps between two cuts
    config.optimizer.step_epochs = 0.0  # the same in epochs; 0: as step_every says
    config.optimizer.step_factor = 0.1
    config.optimizer.ema_decay = 0.97  # decay of the weights' moving average; 0 = off

    config.training = ConfigDict()
    config.training.steps = 500
    config.training.epochs = 0.0  # length in epochs; 0: as steps says
    config.training.batch_size = 16
    config.training.eval_batch_size = 8
    config.training.grad_accum_steps = (
        1  # parts that a batch is taken in, to save memory
    )
    config.training.steps_per_dispatch = 0  # 0: what suits the device
    config.training.log_every = 20  # steps between two training losses
    config.training.eval_every = 100  # steps between two validations
    config.training.checkpoint_every = 0  # steps; 0: at every validation

    config.parallel = ConfigDict()
    config.parallel.partitioner = "jit"  # over a mesh of devices; or "pmap"
    config.parallel.devices = 0  # how many; 0: all there are
    config.parallel.ensemble = 1  # independent runs, trained side by side
    # In what they differ: ((field, (a value for each run)), ...), such as
    # (("noise.rate", (0.1, 0.2)), ("seed", (0, 1))); None: both seeds count up.
    config.parallel.vary = config_dict.placeholder(object)
    config.parallel.ensemble_by = ""  # "vmap", "turns"; "": what suits the device

    config.report = ConfigDict()
    config.report.images = 100  # test images shown at most
    return config
