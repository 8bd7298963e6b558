"""40 % of the pixels of each class flipped, a folder of nuclei (RCL).

    python experiments/main.py --config=configs/nuclei_flip.py --config.data.dir=DIR

4 to 6 minutes on two CPU cores. Test IoU 0.787 in the noise-aware reading (clean
labels: 0.810; 90 % flipped: 0.803).
"""

from ml_collections import ConfigDict

from configs import nuclei


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = nuclei.get_config(variant)
    config.noise.name = "flip"
    config.noise.rate = 0.4
    return config
