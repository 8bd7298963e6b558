"""Masks found without labels, how they came about, and how good they are: the page.

May import `files` and the rest of `report`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from metaseg import files
from metaseg.report import figures, pictures, tables, template, wording

__all__ = ["Evolution", "Shown", "write_igtt"]

TEMPLATE = "igtt.html.jinja"


class Evolution(NamedTuple):
    """The masks of one training image.

    Attributes:
      name: As the user knows it.
      image: `[H, W, C]` of any range.
      masks: Rounds, 0 for the start, and boolean `[H, W]`.
    """

    name: str
    image: np.ndarray
    masks: Sequence[tuple[int, np.ndarray]]


class Shown(NamedTuple):
    """One segmented image.

    Attributes:
      name: As the user knows it, and its files in masks/ and overlays/.
      image: `[H, W, C]` of any range.
      mask: Boolean `[H, W]`.
      iou: With its label; nan where there is none.
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
    """Writes the report of an iGTT run: one HTML file, and no network.

    Args:
      path: File to write; `overlays/NAME.png` beside it are linked.
      results: Contents of results.json.
      history: Rows of metrics.jsonl, one for each round.
      evolution: A few training images.
      shown: Segmented images, in any order.
      config: Resolved configuration, nested dictionaries of plain values.
      environment: Versions, devices and the like, likewise.
    """
    data = results["data"]
    text = template.render(
        TEMPLATE,
        title=f"{data['name']}, without labels",
        sentence=_sentence(results),
        facts=_facts(results),
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
    images = wording.count(data["test"])
    text = f"Masks of {images} images, learnt without labels in {rounds['rounds']} "
    text += "rounds" if rounds["rounds"] != 1 else "round"
    if rounds["labels"] == "choose":
        text += f"; validation labels chose round {rounds['round']}"
    if results["table"]:
        own = results["table"][0]
        text += f". IoU {wording.number(own['iou'])} over all pixels"
        text += f", {wording.number(own['mean_image_iou'])} on average per image"
    return text + "."


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, time = results["data"], results["time"]
    return [
        ("Learnt from", f"{wording.count(data['train'])} images"),
        ("Segmented", f"{wording.count(data['test'])} images"),
        ("Rounds", wording.count(results["igtt"]["rounds"])),
        ("Last stability", wording.number(results["igtt"]["stability"])),
        ("Training", wording.duration(time["train_seconds"])),
        ("Of that, labels", wording.percent(time["update_share"])),
    ]


def _table(table: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Name and measures of each method."""
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
        notes.append("mask alone")
    return {
        "name": each.name,
        "link": f"overlays/{quote(each.name)}.png",
        "picture": picture,
        "note": ", ".join(notes),
    }
