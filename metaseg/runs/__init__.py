"""Whole jobs as functions; the only package that may import everything of `metaseg`.

    training/    runs.train: a network, or an ensemble, on noisy labels
    igtt/        runs.segment: images without labels
    predict.py   predict.predict: new images, into a folder
    audit.py     audit.audit: label maps
    prepare.py   prepare.prepare: a data set for training
    run.py       runs.Run: a finished run; runs.load

predict.py compares with true label maps in prediction_labels.py and writes its table
and measures in prediction_output.py.

What the jobs share: fields.py and arguments.py (checks before jax is imported),
config.py (all field checks, resolved settings), defaults.py and config_files.py
(settings), sources.py (data), loop.py (the training loop), workdir.py, resuming.py,
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
    submod_attrs={
        "training.run": ["train"],
        "igtt.run": ["segment"],
        "run": ["Run", "load"],
    },
)
