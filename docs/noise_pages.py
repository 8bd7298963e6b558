"""Writes docs/noise.md and its pictures: every noise at three strengths.

    make docs            # or: python docs/noise_pages.py

Every picture shows a noise on labels of the built-in cells and on a map of four classes
with a void corner. Where a noise changes the shape, the clean outline is drawn over it.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from metaseg import noise, ntm
from metaseg.data import synthetic
from metaseg.labels import VOID
from metaseg.noise.parameters import keyword_only

DOCS = Path(__file__).resolve().parent
KEY = jax.random.key(1)
CLASSES = 4
# Okabe and Ito's colours, which colour-blind readers can tell apart, on dark grey.
COLOURS = ("#3b3b3b", "#e69f00", "#56b4e9", "#009e73")
VOID_COLOUR = "#ffffff"

LUO = "Luo et al., AAAI 2022"
YAO = "Yao et al. (SpatialCorrection), ICLR 2023"
KIMHI = "Kimhi et al. (COCO-N), 2024"
Parameters = Mapping[str, Any]


class Page(NamedTuple):
    """The text of a noise, and the three strengths of its picture."""

    formula: str
    source: str
    strengths: tuple[Parameters, ...]
    code: str
    outline: bool = True


def _steps(name: str, *values: Any, **fixed: Any) -> tuple[Parameters, ...]:
    return tuple({name: value, **fixed} for value in values)


PAGES: dict[str, dict[str, Page]] = {
    "Pixels independent of place": {
        "flip": Page(
            "P(ỹ = j | y = i) = 1 − r for j = i, r / (K − 1) otherwise; with "
            "`exact=True`, ⌈n r⌉ of the n pixels of a class",
            LUO,
            _steps("rate", 0.1, 0.4, 0.9),
            "noise.flip(key, labels, rate=0.4, num_classes=4)",
            outline=False,
        ),
        "sample": Page(
            "a pixel of a sampled class is kept with probability a, or else becomes "
            "`fill`; with `exact=True`, ⌈n a⌉ of n are kept",
            LUO,
            _steps("fraction", 0.5, 0.1, 0.01),
            "noise.sample(key, labels, fraction=0.1, fill=255)",
            outline=False,
        ),
        "transition": Page(
            "P(ỹ = j | y = i) = T[i, j]; shown: each class to the next one, `ntm.pair`",
            "the general form of `flip` and `sample`; COCO-N's class confusion",
            _steps("matrix", 0.1, 0.3, 0.6),
            "noise.transition(key, labels, matrix=ntm.pair(4, 0.3))",
            outline=False,
        ),
    },
    "Changed shapes": {
        "dilate": Page(
            "background within `radius` of foreground becomes the highest class "
            "within `radius`",
            f"{LUO}; {KIMHI} with `shape='square'`",
            _steps("radius", 1, 3, 6),
            "noise.dilate(key, labels, radius=3)",
        ),
        "erode": Page(
            "foreground within `radius` of background becomes background",
            f"{LUO}; {KIMHI} with `shape='square'`",
            _steps("radius", 1, 3, 6),
            "noise.erode(key, labels, radius=3)",
        ),
        "random_boundary": Page(
            "dilation (ρ > 0) or erosion (ρ < 0) by ρ ~ Uniform{−r, …, r}, per image "
            "or per object; a pixel joins the object of lowest d² − ρ²",
            YAO,
            _steps("radius", 2, 4, 8, per="object"),
            'noise.random_boundary(key, labels, radius=4, per="object")',
        ),
        "skeletonize": Page(
            "Zhang–Suen thinning of each class; shown: the skeleton, and the skeleton "
            "dilated by 1 and by 2",
            LUO,
            ({}, {"then": 1}, {"then": 2}),
            "noise.skeletonize(key, labels)",
        ),
        "shift_pixels": Page(
            "every foreground pixel moves by independent uniform integers in [−r, r] "
            "along both axes",
            LUO,
            _steps("radius", 1, 3, 6),
            "noise.shift_pixels(key, labels, radius=3)",
        ),
        "markov": Page(
            "in each of `steps` steps the pixels of the outer boundary (with "
            "probability θ₁) or of the inner one flip with probability θ₂ each; then "
            "every pixel flips with probability θ₃; then each class is blurred and the "
            "highest value decides",
            YAO,
            _steps("steps", 20, 60, 180, theta1=0.8),
            "noise.markov(key, labels, steps=60, theta1=0.8)",
        ),
        "coarsen": Page(
            "every block of `factor` x `factor` pixels takes its most frequent class",
            "labels drawn at a lower resolution",
            _steps("factor", 2, 4, 8),
            "noise.coarsen(key, labels, factor=4, num_classes=4)",
        ),
        "jitter_vertices": Page(
            "outlines become polygons (Douglas–Peucker), and each vertex moves by "
            "N(0, σ²) along both axes; runs on the host",
            f"{KIMHI}: localization",
            _steps("sigma", 0.5, 1.5, 3.0),
            "noise.jitter_vertices(key, labels, sigma=1.5)",
        ),
        "simplify": Page(
            "outlines become polygons (Douglas–Peucker) within `tolerance`; runs on "
            "the host",
            f"{KIMHI}: approximation",
            _steps("tolerance", 1.0, 3.0, 6.0),
            "noise.simplify(key, labels, tolerance=3.0)",
        ),
    },
    "Misaligned labels": {
        "translate": Page(
            "ỹ(x) = y(x − t), t uniform in {−s, …, s}²",
            "mis-registration",
            _steps("shift", 3, 8, 20),
            "noise.translate(key, labels, shift=8)",
        ),
        "affine": Page(
            "ỹ(x) = y(z R S (x − c) + c + t) with rotation R, shear S, scale z and "
            "translation t",
            "mis-registration",
            (
                {"angle": 5, "scale": 0.05, "shear": 3, "shift": 2},
                {"angle": 15, "scale": 0.15, "shear": 8, "shift": 5},
                {"angle": 45, "scale": 0.3, "shear": 15, "shift": 10},
            ),
            "noise.affine(key, labels, angle=15, scale=0.15, shear=8, shift=5)",
        ),
        "elastic": Page(
            "ỹ(x) = y(x + u(x)) with a stationary field u of root mean square "
            "`amplitude` that has no waves shorter than `wavelength`",
            "Simard et al., ICDAR 2003, with a band-limited field",
            _steps("amplitude", 1.0, 3.0, 8.0),
            "noise.elastic(key, labels, amplitude=3.0, wavelength=32.0)",
        ),
    },
    "Whole objects": {
        "omit": Page(
            "each object (8-connected component) becomes `fill` with probability r",
            "annotators miss objects",
            _steps("rate", 0.2, 0.5, 0.8),
            "noise.omit(key, labels, rate=0.5)",
        ),
        "add": Page(
            "each object is copied, with probability r, to a place drawn uniformly",
            "annotators label objects that do not exist",
            _steps("rate", 0.2, 0.5, 1.0),
            "noise.add(key, labels, rate=0.5)",
        ),
        "merge": Page(
            "background becomes the class of its two nearest objects, if both are of "
            "one class and their distances add up to at most 2 `radius` + 1",
            "annotators merge objects that touch",
            _steps("radius", 2, 5, 10),
            "noise.merge(key, labels, radius=5)",
        ),
        "boxes": Page(
            "every object becomes its bounding box; shown: boxes of the clean labels, "
            "and of labels eroded by 2 and by 4",
            "weak labels",
            ({}, {"first": 2}, {"first": 4}),
            "noise.boxes(key, labels, num_classes=4)",
        ),
        "points": Page(
            "`count` random pixels of each object and `background` random pixels of "
            "the background are kept; all others become void",
            "weak labels; Bearman et al., ECCV 2016",
            _steps("radius", 0, 1, 3),
            "noise.points(key, labels, count=1, background=10, radius=1)",
        ),
        "scribbles": Page(
            "of the skeleton of each object, and of the background, the part within "
            "`length` / 2 of a random point is kept and widened; all other pixels "
            "become void",
            "weak labels; Lin et al. (ScribbleSup), CVPR 2016",
            _steps("length", 10.0, 40.0, 120.0),
            "noise.scribbles(key, labels, length=40.0)",
        ),
    },
    "Random labels": {
        "random": Page(
            "P(ỹ = j) = π_j",
            LUO,
            _steps("prior", 0.1, 0.3, 0.5),
            "noise.random(key, labels, prior=0.3)",
            outline=False,
        ),
        "shuffle": Page(
            "the labels of each map in random order; shown: three draws",
            "a control that keeps each image's class shares",
            _steps("draw", 1, 2, 3),
            "noise.shuffle(key, labels, num_classes=4)",
            outline=False,
        ),
        "constant": Page(
            "ỹ = c",
            "a control",
            _steps("fill", 0, 1, VOID),
            "noise.constant(key, labels, fill=0)",
            outline=False,
        ),
    },
}


def maps() -> tuple[tuple[jax.Array, int], tuple[jax.Array, int]]:
    """Returns a mask of cells and a map of four classes, each with its K."""
    _, cells = synthetic.cells(jax.random.key(5))
    grid = jax.random.normal(jax.random.key(2), (9, 9, CLASSES))
    grid = grid.at[..., 0].add(0.4)  # background has the largest share
    fields = jax.image.resize(grid, (128, 128, CLASSES), "cubic")
    regions = jnp.argmax(fields, axis=-1).astype(jnp.uint8)
    return (cells, 2), (regions.at[100:, 96:].set(VOID), CLASSES)


def corrupted(
    name: str, shown: Parameters, labels: jax.Array, num_classes: int
) -> jax.Array:
    """Returns the map under a noise at one strength."""
    parameters, key = dict(shown), KEY
    if name == "transition":
        parameters["matrix"] = ntm.pair(num_classes, shown["matrix"]).tolist()
    if name == "random":
        foreground = shown["prior"] / (num_classes - 1)
        share = [1 - shown["prior"]] + [foreground] * (num_classes - 1)
        parameters["prior"] = share
    first, then = parameters.pop("first", 0), parameters.pop("then", 0)
    key = jax.random.fold_in(key, parameters.pop("draw", 0))
    fn = noise.build({"name": name, **parameters}, num_classes)
    noisy = fn(key, noise.erode(key, labels, radius=first))
    return noise.dilate(key, noisy, radius=then)


def caption(name: str, shown: Parameters) -> str:
    """Returns the parameters that vary, in short."""
    if name == "transition":
        return f"pair(K, {shown['matrix']})"
    if name == "random" and shown:
        return f"foreground {shown['prior']}"
    fixed = {"theta1", "per"}
    names = {"first": "erode", "then": "dilate"}
    parts = [f"{names.get(k, k)} {v:g}" for k, v in shown.items() if k not in fixed]
    return parts[0] + (", …" if len(parts) > 1 else "") if parts else "as it is"


def show(axis: Axes, labels: np.ndarray, title: str, clean: np.ndarray | None) -> None:
    """Draws one map, and the outlines of the clean map."""
    colours = np.array([to_rgb(colour) for colour in COLOURS])
    picture = colours[np.minimum(labels, CLASSES - 1)]
    picture[labels == VOID] = to_rgb(VOID_COLOUR)
    axis.imshow(picture, interpolation="nearest")
    if clean is not None:
        for class_id in range(1, CLASSES):
            if (clean == class_id).any():
                axis.contour(clean == class_id, [0.5], colors="#d62728", linewidths=0.7)
    axis.set_title(title, fontsize=8, pad=3)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("#999999")


def draw_row(name: str, page: Page, path: Path) -> None:
    """Writes the picture of one noise: two clean maps, each at three strengths."""
    figure = Figure(figsize=(10.4, 1.5), layout="constrained")
    axes = figure.subplots(1, 8)
    for half, (labels, num_classes) in enumerate(maps()):
        row = axes[4 * half : 4 * half + 4]
        clean = np.asarray(labels)
        show(row[0], clean, "clean", None)
        for axis, shown in zip(row[1:], page.strengths, strict=True):
            noisy = np.asarray(corrupted(name, shown, labels, num_classes))
            outline = clean if page.outline else None
            show(axis, noisy, caption(name, shown), outline)
    figure.savefig(path, dpi=100, metadata={"Software": ""})


# Noises of the picture in the README, and which of their strengths it shows.
OVERVIEW = (
    *(("flip", 1), ("sample", 1), ("dilate", 1), ("skeletonize", 0), ("markov", 1)),
    *(("elastic", 1), ("omit", 1), ("boxes", 0), ("scribbles", 1), ("shuffle", 0)),
)


def draw_overview(path: Path) -> None:
    """Writes the picture of one mask under ten noises, in two rows."""
    figure = Figure(figsize=(8.2, 3.5), layout="constrained")
    axes = figure.subplots(2, 5)
    pages = {name: page for group in PAGES.values() for name, page in group.items()}
    (labels, num_classes), _ = maps()
    for axis, (name, index) in zip(axes.flat, OVERVIEW, strict=True):
        noisy = corrupted(name, pages[name].strengths[index], labels, num_classes)
        outline = np.asarray(labels) if pages[name].outline else None
        show(axis, np.asarray(noisy), name, outline)
    figure.savefig(path, dpi=110, metadata={"Software": ""})


def signature(name: str) -> str:
    """Returns `name(parameters)` with defaults."""
    shown = [
        str(parameter.replace(annotation=parameter.empty))
        for parameter in keyword_only(getattr(noise, name)).values()
    ]
    return f"{name}({', '.join(shown)})"


HEAD = """# The noises

Written by `make docs` (`docs/noise_pages.py`); do not edit by hand.

Every noise is a pure function `(key, labels, *, ...) -> labels` on integer maps of
shape `[..., H, W]`. It keeps shape and dtype (64-bit integers of NumPy become 32-bit
ones, as in all of JAX), void (255, or negative) stays void, and it works with `jit`,
`vmap` and sharding. All decisions are made in integers, so the same key gives
the same bits in eager and compiled code, in any batch and on any number of devices.
Tests keep the bits of every noise the same in all versions. An invalid parameter raises
an `InputError`, a `ValueError` that names the parameter.

<!-- invisible-code-block: python
import jax.numpy as jnp

labels = jnp.zeros((2, 32, 32), jnp.int32).at[:, 8:16, 8:20].set(1)
ids = jnp.arange(2)
-->

```python
import jax
from metaseg import noise, ntm

key = jax.random.key(0)
noisy = noise.flip(key, labels, rate=0.4)  # labels: [..., H, W], integer
```

In a config, `config.noise.name` is the name of the noise and `config.noise.PARAMETER`
each of its parameters. `metaseg noise` or `python -m metaseg.noise` lists all noises in
the terminal. The pictures show cells (K = 2, left) and four classes with a void corner
(right). Dark grey is class 0, white is void, and red lines are the clean outlines.

"""

TAIL = """## Combinations

```python
from functools import partial

flip = partial(noise.flip, rate=0.2, num_classes=4)
both = noise.chain(partial(noise.dilate, radius=2), flip)
either = noise.choose(both, noise.skeletonize, weights=(3, 1))  # per example
some = noise.only((0, 2), both)  # classes 1 and 3 stay as they are
batch = noise.per_example(either)(key, labels, ids)  # [B, H, W] and ids [B]
```

In a config, `noises` is a tuple with a mapping for each noise:

```
--config.noise.name=chain
--config.noise.noises="({'name': 'dilate', 'radius': 2}, {'name': 'flip', 'rate': 0.2})"
```

`chain`, `choose` (with `weights`) and `only` (with `classes`) can be nested.

## Noises of other packages

`config.noise.name` also takes `"package.module:name"`, a noise of another package.
Parameters that are not fields of `config.noise` come in the mapping
`config.noise.parameters`. [Plug-ins](plugins.md) shows how to write one.

## Noises that a matrix describes

`noise.build_matrix(config.noise, num_classes)` returns the noise transition matrix T
with `E[one_hot(noisy)] = one_hot(clean) @ T` at every pixel. There is one for `none`,
`flip`, `sample`, `transition`, `omit`, `random`, `constant` and combinations of these.
For all other noises the result is None, because what happens to a pixel depends on its
place.
"""


def text() -> str:
    """Returns the page, of which `docs/noise.md` is a copy."""
    known = [name for group in PAGES.values() for name in group]
    missing = set(noise.NOISES) - {*known, "none", "chain", "choose", "only"}
    if missing:
        raise SystemExit(f"PAGES: {', '.join(sorted(missing))} not described")
    parts = [HEAD]
    for title, group in PAGES.items():
        parts.append(f"## {title}\n\n")
        for name, page in group.items():
            summary = (inspect.getdoc(getattr(noise, name)) or "").partition("\n")[0]
            parts.append(
                f"### `{signature(name)}`\n\n{summary}\n\n"
                f"![{name} at three strengths](noise/{name}.png)\n\n"
                f"- Formula: {page.formula}.\n- Source: {page.source}.\n"
                f"- Code: `{page.code}`\n\n"
            )
    return "".join([*parts, TAIL])


def main() -> None:
    """Writes the page and its pictures."""
    (DOCS / "noise.md").write_text(text(), encoding="utf-8")
    print(DOCS / "noise.md")
    pictures = DOCS / "noise"
    pictures.mkdir(exist_ok=True)
    draw_overview(pictures / "overview.png")
    for group in PAGES.values():
        for name, page in group.items():
            draw_row(name, page, pictures / f"{name}.png")
            print(name, flush=True)


if __name__ == "__main__":
    main()
