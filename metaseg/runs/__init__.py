"""Whole jobs as functions; the only package that may import everything of `metaseg`.

    training/    train: a network, or an ensemble, on noisy labels
    igtt/        segment: images without labels
    predict.py   predict: new images, into a folder
    audit.py     audit: label maps
    prepare.py   prepare: a data set for training
    run.py       Run: a finished run; load

What they share: config.py (field checks, resolved settings), defaults.py and
config_files.py (settings), sources.py (data), loop.py (the training loop), workdir.py,
metrics_log.py, progress.py, signals.py and jobs.py (a job as a process).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "audit",
        "config",
        "config_files",
        "defaults",
        "igtt",
        "jobs",
        "predict",
        "prepare",
        "run",
        "sources",
        "training",
    ],
)
