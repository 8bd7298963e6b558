"""Segmentation from absurdly noisy labels, in JAX and Flax.

    run = metaseg.train(images, labels, noise="flip", rate=0.4)
    run.predict(new_images)

The verbs `train`, `load`, `predict`, `segment` and `audit` are those of `metaseg.api`.
`import metaseg` imports no jax: a module is imported when it is first used, as in
`metaseg.noise.flip`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
