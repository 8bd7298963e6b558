"""What the tissue configs share: built-in histology-like images of 4 classes, no noise.

Stroma, epithelium, lymphoid tissue and thin membranes, in colour; rendered by the
package, so that nothing need be downloaded.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Built-in tissue."""
    config = default.get_config()
    config.data.name = "tissue"
    config.data.num_classes = 4
    return config
