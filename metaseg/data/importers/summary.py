"""What was imported, in numbers and in pictures."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from metaseg.data.importers import encoding
from metaseg.data.importers.encoding import StoragePlan
from metaseg.data.importers.pairs import VOID
from metaseg.data.importers.staging import Stored
from metaseg.text import count_of

__all__ = ["contact_sheet", "facts", "lines", "summarise"]

Colour = tuple[int, int, int]

SHOWN = 12  # examples on a contact sheet
PER_ROW = 3
SIDE = 160  # pixels of a picture
LINE = 16  # pixels of a line of text


def facts(stored: Sequence[Stored], plan: StoragePlan) -> dict[str, Any]:
    """Returns names, sizes and class counts of a split, for metadata.json.

    Args:
      stored: Examples of the split.
      plan: Form of the data set.

    Returns:
      The section of the split.
    """
    pixels = np.zeros(plan.num_classes + 1, np.int64)  # void last
    for record, _ in stored:
        for class_id, number in record.pixels.items():
            pixels[min(class_id, plan.num_classes)] += number
    return {
        "names": [one.record.name for one in stored],
        "sizes": [list(one.record.size) for one in stored],
        "class_pixels": pixels.tolist(),
    }


def summarise(
    metadata: Mapping[str, Any],
    splits: Mapping[str, Sequence[Stored]],
    bad: Sequence[str],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Makes the contents of summary.json: counts, sizes, class shares, left out files.

    Args:
      metadata: of the data set.
      splits: its examples.
      bad: a line for each file that was left out.
      more: what else there is to say.

    Returns:
      The contents.
    """
    described = {}
    for split, own in metadata["splits"].items():
        height, width = np.array(own["sizes"] or [[0, 0]]).T
        pixels = np.array(own["class_pixels"])
        labelled = max(1, pixels[:-1].sum())
        described[split] = {
            "examples": len(own["names"]),
            "height": [int(x) for x in (height.min(), np.median(height), height.max())],
            "width": [int(x) for x in (width.min(), np.median(width), width.max())],
            "class_shares": (pixels[:-1] / labelled).tolist(),
            "void_share": float(pixels[-1] / max(1, pixels.sum())),
        }
    overlap = sum(one.record.overlap for own in splits.values() for one in own)
    return {
        **{k: metadata[k] for k in ("source", "config", "channels", "dtype")},
        "classes": metadata["class_names"] or _names(metadata["num_classes"]),
        "splits": described,
        "overlapping_pixels": overlap,
        **more,
        "bad": list(bad),
    }


def _names(num_classes: int) -> list[str]:
    if num_classes == 2:
        return ["background", "foreground"]
    return [f"class {i}" for i in range(num_classes)]


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Formats a summary as a few lines of text.

    Args:
      summary: Contents of summary.json.

    Returns:
      The lines.
    """
    kinds = {1: "grey", 3: "colour"}
    kind = kinds.get(summary["channels"], f"{summary['channels']} channels")
    text = [
        *summary["notes"],
        f"{summary['source']}/{summary['config']}: {kind}, {summary['dtype']},"
        f" {len(summary['classes'])} classes",
        f"{'split':8}{'examples':>9}{'height':>14}{'width':>14}{'void':>9}",
    ]
    for split, own in summary["splits"].items():
        height, width = (
            f"{low}" if low == high else f"{low} to {high}"
            for low, _, high in (own["height"], own["width"])
        )
        text.append(
            f"{split:8}{own['examples']:>9}{height:>14}{width:>14}"
            f"{own['void_share']:>9.2%}"
        )
    shares = [own["class_shares"] for own in summary["splits"].values()]
    titles = "".join(f"{split:>9}" for split in summary["splits"])
    text.append(f"{'share of labelled pixels':26}{titles}")
    for i, name in enumerate(summary["classes"]):
        each = "".join(f"{share[i]:>9.2%}" for share in shares)
        text.append(f"  {name:24}{each}")
    if summary["overlapping_pixels"]:
        pixels = count_of(summary["overlapping_pixels"], "pixel")
        text.append(f"{pixels} in several objects")
    if summary["bad"]:
        bad = count_of(len(summary["bad"]), "bad file")
        text.append(f"left out: {bad}, listed in summary.json")
    return text


def contact_sheet(
    path: Path,
    splits: Mapping[str, Sequence[Stored]],
    plan: StoragePlan,
    class_names: Sequence[str],
    colours: Sequence[Colour],
    pool: Executor | None,
) -> None:
    """Writes a picture of examples from all splits, each image beside its label.

    Args:
      path: the PNG.
      splits: the examples.
      plan: how they are stored.
      class_names: K names.
      colours: of the classes, and of void.
      pool: decodes, or None to do it here.
    """
    every = [(split, one) for split, own in splits.items() for one in own]
    picked = np.unique(np.linspace(0, len(every) - 1, SHOWN).astype(int))
    shown = [every[i] for i in picked]
    jobs = [(one, plan, tuple(colours)) for _, one in shown]
    made = map(_tile, jobs) if pool is None else pool.map(_tile, jobs)
    rows = -(-len(shown) // PER_ROW)
    cell_width, cell_height = 2 * SIDE + 12, SIDE + LINE + 8
    legend = -(-(len(class_names) + 1) // (2 * PER_ROW)) * LINE + 8
    size = (PER_ROW * cell_width, rows * cell_height + legend)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, ((split, one), tile) in enumerate(zip(shown, made, strict=True)):
        x, y = i % PER_ROW * cell_width + 4, i // PER_ROW * cell_height
        pen.text((x, y + 2), _plain(f"{split}/{one.record.name}", 50), fill="black")
        sheet.paste(Image.fromarray(tile), (x, y + LINE))
    for i, (name, colour) in enumerate(
        zip([*class_names, "void"], colours, strict=True)
    ):
        x = i % (2 * PER_ROW) * (cell_width // 2) + 4
        y = rows * cell_height + i // (2 * PER_ROW) * LINE + 4
        pen.rectangle((x, y + 2, x + 10, y + 12), fill=colour, outline="black")
        pen.text((x + 16, y), _plain(name, 22), fill="black")
    sheet.save(path)


def _plain(text: str, length: int) -> str:
    """Pillow's own font has few letters beyond ASCII."""
    return text[:length].encode("ascii", "replace").decode()


def _tile(job: tuple[Stored, StoragePlan, tuple[Colour, ...]]) -> np.ndarray:
    """An image beside its label, uint8 `[SIDE, 2 * SIDE + 4, 3]`, white around them."""
    one, plan, colours = job
    image_bytes, label_bytes = one.read()
    image = encoding.decode_image(image_bytes, one.record.size, plan)
    label = encoding.decode_label(label_bytes)
    of_id = np.zeros((256, 3), np.uint8)
    of_id[: len(colours) - 1] = colours[:-1]
    of_id[VOID] = colours[-1]
    step = max(1, max(label.shape) // (2 * SIDE))  # the sheet shows no more
    image, label = image[::step, ::step], label[::step, ::step]
    height, width = label.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = np.full((SIDE, 2 * SIDE + 4, 3), 255, np.uint8)
    left = Image.fromarray(_shown(image)).resize(size, Image.Resampling.BOX)
    right = Image.fromarray(of_id[label]).resize(size, Image.Resampling.NEAREST)
    tile[: size[1], : size[0]] = np.asarray(left)
    tile[: size[1], SIDE + 4 : SIDE + 4 + size[0]] = np.asarray(right)
    return tile


def _shown(image: np.ndarray) -> np.ndarray:
    """uint8 `[H, W, 3]`; all but 8-bit colour is stretched between its percentiles.

    Shows the first three channels; the mean of two.
    """
    if image.shape[-1] == 2:
        image = image.astype(np.float32).mean(axis=-1, keepdims=True)
    image = image[..., :3]
    if image.shape[-1] == 1 or image.dtype != np.uint8:
        low, high = np.percentile(image, (1, 99.8))
        scaled = (image.astype(np.float32) - low) / max(float(high - low), 1e-12)
        image = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
