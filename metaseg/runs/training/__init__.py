"""Training as a function; see `run.train`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=(
        "evaluation",
        "feeds",
        "members",
        "output",
        "results",
        "run",
        "setup",
        "steps",
        "undefined",
    ),
)
