"""report.html of an iGTT run: segmented images, masks over the rounds, measures.

May import `files` and the rest of `report`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from metaseg import files
from metaseg.report import figures, pictures, tables, template, wording
from metaseg.text import count_of

__all__ = ["Evolution", "Shown", "write_igtt"]

TEMPLATE = "igtt.html.jinja"


class Evolution(NamedTuple):
    """Masks of one training image after some of the rounds.

    Attributes:
      name: Name of the image.
      image: Numbers of any range, `[H, W, C]`.
      masks: Round (0: before the first round) and mask, boolean `[H, W]`.
    """

    name: str
    image: np.ndarray
    masks: Sequence[tuple[int, np.ndarray]]


class Shown(NamedTuple):
    """One segmented image.

    Attributes:
      name: Name of the image, and of its files in masks/ and overlays/.
      image: Numbers of any range, `[H, W, C]`.
      mask: Boolean `[H, W]`.
      iou: IoU of mask and label; nan without a label.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    iou: float


def write_igtt(
    path: str | os.PathLike[str],
    *,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    evolution: Sequence[Evolution],
    shown: Sequence[Shown],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> None:
    """Writes the page of an iGTT run as one HTML file.

    Args:
      path: File to write. The page links to `overlays/NAME.png` in the same folder.
      results: Contents of results.json.
      history: Rows of metrics.jsonl, one for each round.
      evolution: Masks of a few training images over the rounds.
      shown: Segmented images, in any order.
      config: Resolved configuration: nested dictionaries of plain values.
      environment: Versions, devices and so on: nested dictionaries of plain values.
    """
    data = results["data"]
    text = template.render(
        TEMPLATE,
        title=f"{data['name']}, segmented without labels",
        sentence=_sentence(results),
        facts=_facts(results),
        warnings=results.get("warnings") or [],
        table=_table(results["table"]),
        charts=figures.round_curves(history),
        evolution=[_evolved(each) for each in evolution],
        shown=[_pictured(each) for each in shown],
        segmented=wording.count(data["test"]),
        every=len(shown) == data["test"],
        command=results["command"],
        config=tables.flatten(config),
        environment=tables.flatten(environment),
    )
    files.write_text(path, text)


def _sentence(results: Mapping[str, Any]) -> str:
    data, rounds = results["data"], results["igtt"]
    images = count_of(data["test"], "image")
    text = f"{images}, segmented after {count_of(rounds['rounds'], 'round')} of "
    text += "training without labels."
    if rounds["labels"] == "choose":
        text += f" Validation labels selected round {rounds['round']}."
    if results["table"]:
        own = results["table"][0]
        text += f" The IoU is {wording.number(own['iou'])} over all pixels and "
        text += f"{wording.number(own['mean_image_iou'])} on average per image."
    return text


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, time = results["data"], results["time"]
    return [
        ("Training images", wording.count(data["train"])),
        ("Segmented images", wording.count(data["test"])),
        ("Rounds", wording.count(results["igtt"]["rounds"])),
        ("Stability of the last round", wording.number(results["igtt"]["stability"])),
        ("Training time", wording.duration(time["train_seconds"])),
        ("Share for label updates", wording.percent(time["update_share"])),
    ]


def _table(table: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Returns name and measures of each method."""
    keys = ("iou", "mean_image_iou", "dice")
    return [(row["name"], [wording.number(row[key]) for key in keys]) for row in table]


def _evolved(each: Evolution) -> dict[str, Any]:
    drawn = [("Image", pictures.image_picture(each.image))]
    for round_, mask in each.masks:
        picture, _ = pictures.outline_picture(
            mask.astype(np.uint8), 2, image=each.image
        )
        drawn.append((f"Round {round_}" if round_ else "Start", picture))
    return {"name": each.name, "pictures": drawn}


def _pictured(each: Shown) -> dict[str, Any]:
    picture, over = pictures.outline_picture(
        each.mask.astype(np.uint8), 2, image=each.image
    )
    notes = [f"{wording.percent(each.mask.mean())} foreground"]
    if wording.is_number(each.iou):
        notes.insert(0, f"IoU {wording.number(each.iou)}")
    if not over:
        notes.append("drawn without the image")
    return {
        "name": each.name,
        "link": f"overlays/{quote(each.name)}.png",
        "picture": picture,
        "note": ", ".join(notes),
    }
