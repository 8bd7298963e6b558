"""What the configs of real data share: the source's protocol, a noise matrix."""

from ml_collections import ConfigDict

from metaseg.errors import InputError

VARIANTS = ("small", "paper")


def check(variant: str) -> None:
    """Raises InputError unless `variant` is one that the configs have."""
    if variant not in VARIANTS:
        raise InputError(
            f"--config: no variant '{variant}'; expected one of {', '.join(VARIANTS)}, "
            "as in configs/er_flip.py:paper"
        )


def paper(config: ConfigDict) -> ConfigDict:
    """Sets network, optimiser and length as the source does (AAAI 2022).

    U-Net of width 64 with four poolings, weights drawn with standard deviation 0.02;
    SGD with momentum 0.9, weight decay 1e-3, learning rate 0.05 times 0.1 every 20 of
    100 epochs; batches of 32 windows of 256 x 256, images standardised one by one.
    Its augmentation beforehand (rotation up to 45 degrees, shifts, blur) is ours on
    device: crops, flips, quarter turns, brightness and contrast.
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


def symmetric(num_classes: int, rate: float) -> tuple[tuple[float, ...], ...]:
    """Each class stays with 1 - rate, else becomes any other, all equally likely."""
    other = rate / (num_classes - 1)
    return tuple(
        tuple(1 - rate if j == i else other for j in range(num_classes))
        for i in range(num_classes)
    )
