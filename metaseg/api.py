"""The verbs of daily use, for notebooks and scripts: arrays or folders in, runs out.

The command line calls the same functions of `metaseg.runs`. Training keeps compiled
programs for the next run, see `metaseg.host.cache_compiled_programs`.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from ml_collections import ConfigDict

from metaseg import checks, host
from metaseg import files as files_lib
from metaseg.data.arrays import from_arrays, from_images
from metaseg.data.dataset import Dataset
from metaseg.data.file_options import FileKeywords
from metaseg.errors import InputError, prefixed
from metaseg.prediction import predict
from metaseg.runs import audit as audit_lib
from metaseg.runs import config_files, defaults, sources
from metaseg.runs.igtt.run import segment as segment_run
from metaseg.runs.run import Run, load
from metaseg.runs.training.run import train as train_run

__all__ = ["audit", "load", "predict", "segment", "train"]

_LABEL_OPTIONS = ("label_values", "label_colors", "label_threshold", "instances")
Arrays = Any  # `[N, H, W]`, `[N, H, W, C]`, or a sequence of arrays


def train(
    images: Arrays | str | os.PathLike[str] | None = None,
    labels: Arrays | None = None,
    *,
    config: ConfigDict | str | None = None,
    noise: str | None = None,
    steps: int | None = None,
    fields: Mapping[str, Any] | None = None,
    val: float | tuple[Arrays, Arrays | None] | None = 0.1,
    test: float | tuple[Arrays, Arrays | None] | None = 0.2,
    num_classes: int | None = None,
    workdir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    **noise_parameters: Any,
) -> Run:
    """Trains a network on labels corrupted on device, and evaluates it.

    Args:
      images: Images `[N, H, W]` or `[N, H, W, C]`, or a sequence of arrays `[H, W]` or
        `[H, W, C]` of any sizes; or a folder with `{train,val,test}/{images,labels}`.
        Without images, `config` names the data.
      labels: Label maps of the images: class ids, 255 is void; or masks of 0 and 255.
        Others need a field that says how to read them, such as
        `fields={"files.instances": "union"}`.
      config: Settings, or the file or name of a config, such as "cell_flip" or
        "nuclei:noise=flip,rate=0.4"; by default the settings of `defaults.get_config`,
        with a crop that suits the images.
      noise: Name of a noise, see `metaseg.noise`, or "package.module:name".
      steps: Number of training steps.
      fields: More settings by name, such as `{"model.width": 16}`.
      val: Share of the images for validation, or a pair of images and labels; 0 or
        None: none.
      test: Share of the images for the test, or a pair of images and labels, which may
        be None; 0 or None: none.
      num_classes: Number of classes K; by default one more than the highest id.
      workdir: Folder for results and checkpoints; the same call resumes a stopped run.
        Without it, the run is in memory and `Run.save` writes it.
      quiet: Whether to print no progress.
      **noise_parameters: Parameters of the noise, such as `rate=0.4`.

    Returns:
      The finished run.

    Raises:
      InputError: If the input is wrong; the message names the argument or the field.
    """
    found = _settings(config, defaults.get_config)
    _set_noise(found, noise, noise_parameters)
    if steps is not None:
        checks.integer("steps", steps, 1)
        found.training.steps, found.training.epochs = steps, 0.0
    fields = fields or {}
    _set_fields(found, fields)  # first: normalisation and seed shape the data
    num_classes = fields.get("data.num_classes", num_classes)
    data = None
    if isinstance(images, str | os.PathLike):
        if labels is not None:
            raise InputError("labels: given with a folder of images, expected None")
        found.data.name, found.data.dir = "folder", os.fspath(images)
        if num_classes is not None:
            found.data.num_classes = num_classes
    elif images is not None:
        if labels is None:
            raise InputError("labels: not given, expected a label map of each image")
        with prefixed("files.", *_LABEL_OPTIONS):
            data = from_arrays(
                images,
                labels,
                val=val,
                test=test,
                num_classes=num_classes,
                seed=found.seed,
                **_normalization(found),
                **{name: found.files[name] for name in _LABEL_OPTIONS},
            )
        found.data.num_classes = data.num_classes
        _describe_arrays(found, data)
        if config is None and "augment.crop" not in fields:
            found.augment.crop = _crop(found, data)
    elif labels is not None:
        raise InputError("images: not given, expected an image of each label map")
    host.cache_compiled_programs()
    return train_run(found, data, workdir=_folder(workdir), quiet=quiet)


def segment(
    images: Arrays | str | os.PathLike[str],
    *,
    config: ConfigDict | str | None = None,
    fields: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Run:
    """Segments images into foreground and background without labels, by iGTT.

    Args:
      images: Images `[N, H, W]` or `[N, H, W, C]`, a sequence of arrays of any sizes,
        or a folder of images.
      config: Settings, or the file or name of a config, such as "cell_igtt"; by default
        those of "folder_igtt".
      fields: More settings by name, such as `{"igtt.sigma_coarse": 8.0}`.
      workdir: Folder for masks and results; without it, the run is in memory.
      quiet: Whether to print no progress.

    Returns:
      The finished run; `masks` has a mask of each image by name: by its index,
      `"000000"`, `"000001"`, ..., for arrays.

    Raises:
      InputError: If the input is wrong; the message names the argument or the field.
    """
    found = _settings(config, lambda: config_files.load("folder_igtt"))
    fields = fields or {}
    _set_fields(found, fields)  # first: normalisation shapes the data
    found.data.name, found.igtt.labels = sources.IMAGES, "none"
    data = None
    if isinstance(images, str | os.PathLike):
        found.data.dir = os.fspath(images)
    else:
        data = from_images(images, **_normalization(found))
        _describe_arrays(found, data)
    host.cache_compiled_programs()
    return segment_run(found, data, workdir=_folder(workdir), quiet=quiet)


def audit(
    labels: Arrays | str | os.PathLike[str],
    *,
    reference: Arrays | str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    seed: int = 0,
    **files: Unpack[FileKeywords],
) -> dict[str, Any]:
    """Measures what label maps still teach, and how they differ from a reference.

    Args:
      labels: Label maps `[N, H, W]`, a sequence of arrays `[H, W]`, or a folder.
      reference: Label maps of the same images that are believed to be right, or None.
      output: Folder for audit.json, audit.csv and audit.html; None writes nothing.
      num_classes: Number of classes K; by default one more than the highest id.
      class_names: K names.
      seed: Seed of the bootstrap.
      **files: How label files are read: fields of `FileOptions`, such as
        `instances="union"`.

    Returns:
      The content of audit.json, see docs/audit.md.

    Raises:
      InputError: If an argument is wrong.
    """
    if output is None:
        found = audit_lib.audit_arrays(
            labels,
            reference,
            num_classes=num_classes,
            class_names=class_names,
            seed=seed,
            **files,
        )
        return files_lib.plain(found)
    return audit_lib.audit(
        labels,
        output,
        reference=reference,
        num_classes=num_classes or 0,
        class_names=class_names,
        seed=seed,
        **files,
    ).summary


def _settings(config: ConfigDict | str | None, default: Any) -> ConfigDict:
    """Returns a copy of the settings whose fields can be set."""
    found: Any = default() if config is None else config
    if isinstance(found, str):
        found = config_files.load(found)
    if not isinstance(found, ConfigDict):
        raise InputError(
            f"config: got {type(config).__name__}, expected a ConfigDict, or the name "
            "of a config"
        )
    return ConfigDict(found.to_dict()).lock()


def _normalization(config: ConfigDict) -> dict[str, Any]:
    c = config.data
    return {"normalize": c.normalize, "mean": c.mean, "std": c.std}


def _describe_arrays(config: ConfigDict, data: Dataset) -> None:
    """Names arrays in the settings by their content, so that others do not resume."""
    content = 0
    for _, split in data.splits():
        every = split.take(np.arange(len(split)))
        for array in (every.images, every.labels):
            content = zlib.crc32(np.ascontiguousarray(array).tobytes(), content)
    if config.data.name != sources.IMAGES:
        config.data.name = "arrays"
    config.data.dataset = f"arrays/{content:08x}"


def _crop(config: ConfigDict, data: Dataset) -> int:
    """Returns the default crop, or the largest that every image has."""
    return int(min(data.train.valid_size.min(), config.augment.crop))


def _set_noise(
    config: ConfigDict, noise: str | None, parameters: Mapping[str, Any]
) -> None:
    if noise is not None:
        if not isinstance(noise, str):
            raise InputError(f"noise: got {noise!r}, expected the name of a noise")
        for field in config.noise:  # parameters of the config's own noise
            if field not in ("seed", "online"):
                config.noise[field] = None if field != "name" else noise
    given = dict(parameters)
    for name in [name for name in given if name in config.noise and name != "name"]:
        with config.ignore_type():
            config.noise[name] = given.pop(name)
    if given and ":" not in config.noise.name:
        known = ", ".join(name for name in config.noise if name != "name")
        raise InputError(
            f"{next(iter(given))}: no parameter of a noise; expected one of {known}"
        )
    if given:
        config.noise.parameters = given


def _set_fields(config: ConfigDict, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        *sections, last = name.split(".")
        here: Any = config
        for section in sections:
            known = isinstance(here, ConfigDict) and section in here
            here = here[section] if known else None
        if not isinstance(here, ConfigDict) or last not in here:
            raise InputError(f"fields: no field '{name}'; see defaults.get_config")
        try:
            here[last] = value
        except TypeError as error:
            raise InputError(
                f"fields: got {value!r} for '{name}', expected "
                f"{type(here[last]).__name__}"
            ) from error


def _folder(workdir: str | os.PathLike[str] | None) -> Path | None:
    from metaseg.runs import jobs

    return None if workdir is None else jobs.folder(os.fspath(workdir))
