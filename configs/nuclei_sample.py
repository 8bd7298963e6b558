"""10 % of the foreground pixels kept, a folder of nuclei (RCL).

    python experiments/main.py --config=configs/nuclei_sample.py --config.data.dir=DIR

4 to 6 minutes on two CPU cores. Test IoU 0.799 in the noise-aware reading, 0.000 at
one half (clean labels: 0.810).
"""

from ml_collections import ConfigDict

from configs import nuclei


def get_config(variant: str = "small") -> ConfigDict:
    """The run."""
    config = nuclei.get_config(variant)
    config.noise.name = "sample"
    config.noise.fraction = 0.1
    return config
