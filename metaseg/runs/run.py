"""A finished run: its settings, results and network, in memory or in a work folder."""

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from metaseg import checkpoint, files, prediction
from metaseg.data.file_options import FileKeywords
from metaseg.errors import InputError
from metaseg.runs import jax_settings, loop, progress

__all__ = ["Run", "load", "save_weights"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A finished run.

    Attributes:
      config: Resolved settings.
      results: Content of `results.json`: `results["test"]["iou"]["analytic"]` is the
        IoU over the test split by the noise-aware decision rule.
      history: Rows of metrics: "step", "split" and the metrics by name.
      environment: Versions and devices.
      folder: Work folder; None for a run in memory.
      members: The runs of an ensemble; empty for a run by itself.
      masks: After iGTT, a mask of each image by name, uint8 `[H, W]` of 0 and 1.
      state: Train state that `results` measures, of a run in memory.
      panels: Test images for the report, of a run in memory.
    """

    config: FrozenConfigDict | ConfigDict
    results: dict[str, Any]
    history: list[dict[str, Any]]
    environment: dict[str, Any]
    folder: Path | None = None
    members: tuple["Run", ...] = ()
    masks: dict[str, np.ndarray] | None = None
    state: Any = dataclasses.field(default=None, repr=False)
    panels: Sequence[Any] = dataclasses.field(default=(), repr=False)

    def __repr__(self) -> str:
        """Returns what was trained and where it is."""
        where = "in memory" if self.folder is None else f"in '{self.folder}'"
        return f"Run({self.results['data']['name']}, {where})"

    @functools.cached_property
    def predictor(self) -> prediction.Predictor:
        """The network with its decision rules.

        The weights are those that `results` measures: the last or, with
        `config.training.weights` "best", those of the best validation.
        """
        if self.folder is not None:
            return prediction.load(self.folder)
        if self.members:
            raise InputError("run: an ensemble; expected one of its members")
        return prediction.from_results(
            self.config, self.results, jax.device_put(self.state.variables())
        )

    @jax_settings.same_numbers()
    def predict(
        self,
        images: Any,
        *,
        decision_rule: str = "analytic",
        tile: int | None = None,
        overlap: int | None = None,
        **files: Unpack[FileKeywords],
    ) -> list[prediction.Prediction]:
        """Segments images of any size.

        Args:
          images: Images as `prediction.predict` takes them: an image, images
            `[N, H, W]` or `[N, H, W, C]`, or a sequence of arrays or paths; in the
            units of the training images, not normalised.
          decision_rule: "analytic" (noise-aware), "argmax" or "validation".
          tile: Side in pixels of the tiles that the network sees at once.
          overlap: Overlap of neighbouring tiles in pixels.
          **files: How image files are read, see `prediction.predict`.

        Returns:
          For each image its labels, uint8 `[H, W]`, and scores, float32 `[H, W, K]`.

        Raises:
          InputError: If an argument is wrong.
        """
        return prediction.predict(
            self.predictor,
            images,
            decision_rule=decision_rule,
            tile=tile,
            overlap=overlap,
            **files,
        )

    @jax_settings.same_numbers()
    def export(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Writes the network with normalisation and decision rule as StableHLO.

        Args:
          path: File to write.
          **options: See `prediction.export`.

        Raises:
          InputError: If an argument is wrong.
        """
        from metaseg.prediction import export

        export(self.predictor, path, **options)

    @jax_settings.same_numbers()
    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes a run in memory into a folder, as a run with a work folder does.

        The folder appears whole or not at all.

        Args:
          folder: New or empty folder.
          overwrite: Whether to replace a run that `folder` holds.

        Returns:
          The folder, from which `load` reads the run.

        Raises:
          InputError: If the folder is not empty, unless it holds a run and `overwrite`
            is true; or if this run has a folder already.
        """
        place = files.expanded(folder)
        if self.folder is not None:
            raise InputError(f"folder: the run is saved in '{self.folder}' already")
        _check_replaceable(place, overwrite)
        if files.in_bucket(place):
            self._write(place)
            return place
        draft = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            self._write(draft)
            if place.is_dir():
                shutil.rmtree(place)
            draft.replace(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return place

    def _write(self, place: Path) -> None:
        from metaseg.runs.training import output  # imports the report

        members = [
            dataclasses.replace(member, folder=place / "members" / str(i))
            for i, member in enumerate(self.members)
        ]
        results = self.results
        if members:
            rows = [
                {**row, "folder": f"members/{i}"}
                for i, row in enumerate(results["members"])
            ]
            results = {**results, "members": rows}
        saved = dataclasses.replace(
            self, folder=place, members=tuple(members), results=results
        )
        for one in members or [saved]:
            assert one.folder is not None
            name = results.get("network", "checkpoints")
            save_weights(one.folder / name, one.results["weights"]["step"], one.state)
            lines = [json.dumps(files.plain(row)) + "\n" for row in one.history]
            files.write_text(one.folder / "metrics.jsonl", "".join(lines))
        for one in (*members, saved):
            assert one.folder is not None
            files.write_json(one.folder / "config.json", one.config.to_dict())
            files.write_json(one.folder / "environment.json", one.environment)
        output.write(saved)


def _check_replaceable(place: Path, overwrite: bool) -> None:
    """Raises InputError unless a folder is new, empty, or a run to be replaced."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    holds_run = (place / "config.json").is_file() and (place / "results.json").is_file()
    if holds_run and overwrite:
        return
    cure = ", or overwrite=True to replace the run in it" if holds_run else ""
    raise InputError(f"folder: got '{place}', expected a new or empty folder{cure}")


def save_weights(folder: Path, step: int, state: Any) -> None:
    """Saves a train state as the only checkpoint of a folder.

    Args:
      folder: New folder.
      step: Number of steps taken.
      state: Train state.

    Raises:
      InputError: If the checkpoint cannot be written.
    """
    arrays = jax.device_put(state)
    with progress.quiet_logging():
        checkpoints = checkpoint.Checkpoints(folder)
        try:
            loop.guard(checkpoints, step, lambda: checkpoints.save(step, arrays, {}))
            loop.guard(checkpoints, step, checkpoints.wait)
        finally:
            checkpoints.close()


@jax_settings.same_numbers()
def load(folder: str | os.PathLike[str]) -> Run:
    """Loads a finished run from its work folder.

    Args:
      folder: Work folder of a run, or a folder that `Run.save` wrote.

    Returns:
      The run; its weights are read when they are first needed.

    Raises:
      InputError: If the folder holds no finished run.
    """
    place = files.expanded(folder)
    read = functools.partial(files.read_run, place)
    results = read("results.json")
    members = tuple(load(place / row["folder"]) for row in results.get("members") or ())
    masks = None
    if "igtt" in read("config.json"):
        masks = _read_masks(place / "masks")
    return Run(
        config=ConfigDict(read("config.json")),
        results=results,
        history=[] if members else _read_rows(place / "metrics.jsonl"),
        environment=read("environment.json"),
        folder=place,
        members=members,
        masks=masks,
    )


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _read_masks(folder: Path) -> dict[str, np.ndarray]:
    from PIL import Image  # imported late: most runs have no masks

    masks = {}
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as file:
            name = path.relative_to(folder).with_suffix("").as_posix()
            masks[name] = (np.asarray(file) > 0).astype(np.uint8)
    return masks
