"""Eager calls of public functions: the second one compiles nothing.

A loop whose body is a closure compiles again at each call outside of `jax.jit`, and the
program is kept for ever. So every public function of arrays is called twice, with other
values of the same shapes.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from metaseg import (
    auditing,
    decoding,
    density,
    igtt,
    information,
    labels,
    losses,
    metrics,
    models,
    morphology,
    noise,
    ntm,
    unsupervised,
)
from metaseg.data import augment

K = 3
SHAPE = (2, 12, 10)
_COMPILATION = "/jax/core/compile/backend_compile_duration"


class Drawn(NamedTuple):
    """Arguments with the same shapes for every seed."""

    key: jax.Array
    labels: np.ndarray  # of K classes, with void
    other: np.ndarray
    binary: np.ndarray
    ids: np.ndarray
    images: np.ndarray  # [2, 12, 10, 3]
    scores: np.ndarray
    probabilities: np.ndarray
    logits: np.ndarray
    share: float
    shares: np.ndarray  # one for each class; they sum to 1
    matrix: np.ndarray
    counts: np.ndarray
    histogram: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        return self.binary == 1


def draw(seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*SHAPE, K)).astype(np.float32)
    probabilities = np.exp(logits)
    matrix = np.eye(K) + rng.uniform(0, 0.3, (K, K))
    shares = rng.uniform(0.2, 1, K)

    def maps(*ids: int) -> np.ndarray:
        coarse = rng.choice(ids, (SHAPE[0], 4, 5))
        return coarse.repeat(3, axis=1).repeat(2, axis=2).astype(np.uint8)

    return Drawn(
        key=jax.random.key(seed),
        labels=maps(0, 0, 1, 2, labels.VOID),
        other=maps(0, 1, 2),
        binary=maps(0, 0, 1),
        ids=rng.integers(0, 1000, SHAPE[0]),
        images=rng.uniform(size=(*SHAPE, 3)).astype(np.float32),
        scores=rng.uniform(size=SHAPE).astype(np.float32),
        probabilities=probabilities / probabilities.sum(-1, keepdims=True),
        logits=logits,
        share=rng.uniform(0.1, 0.9),
        shares=shares / shares.sum(),
        matrix=matrix / matrix.sum(1, keepdims=True),
        counts=rng.integers(1, 50, (K, K)),
        histogram=rng.integers(1, 9, (2, 16)),
    )


def config_of(name: str, **parameters: Any) -> Callable[[Drawn], Any]:
    """Builds the noise of a config anew, and calls it."""

    def call(d: Drawn) -> Any:
        inner = ({"name": "flip", "rate": d.share}, {"name": "dilate", "radius": 1})
        config = {"name": name, "noises": inner, **parameters}
        return noise.build(config, K)(d.key, d.labels)

    return call


def on_labels(fn: Callable[..., Any], **options: Any) -> Callable[[Drawn], Any]:
    return lambda d: fn(d.key, d.labels, **options)


def on_mask(fn: Callable[..., Any], *more: Any) -> Callable[[Drawn], Any]:
    return lambda d: fn(d.mask, *more)


def on_image(fn: Callable[..., Any], *more: Any) -> Callable[[Drawn], Any]:
    return lambda d: fn(d.images[0], *more)


def on_logits(fn: Callable[..., Any]) -> Callable[[Drawn], Any]:
    return lambda d: (fn(d.logits, d.other), fn(d.logits[..., :1], d.binary))


def statistics(d: Drawn) -> decoding.Statistics:
    return decoding.statistics(d.logits[..., :1], d.binary, d.matrix[:2, :2])


def chosen(d: Drawn) -> Any:
    flip = partial(noise.flip, rate=d.share, num_classes=K)
    either = noise.choose(flip, partial(noise.dilate, radius=1), weights=(1, 2))
    return either(d.key, d.labels)


def network(d: Drawn) -> Any:
    config = {"name": "unet", "width": 2, "depth": 1, "norm": "group"}
    config |= {"dtype": "float32", "init": "he"}
    model = models.build(ConfigDict(config), K)
    images = d.images[:, :8, :8]
    weights = model.init(d.key, images, train=False)
    return model.apply(weights, images, train=False)


def compared(d: Drawn) -> Any:
    return auditing.compare(d.labels[0], d.other[0], K)


def joints(d: Drawn) -> np.ndarray:
    return np.stack([d.counts, d.counts.T])


def examined(d: Drawn) -> list[Any]:
    return [auditing.examine(each, K) for each in d.other]


CALLS: dict[str, dict[str, Callable[[Drawn], Any]]] = {
    "noise": {
        "add": lambda d: noise.add(d.key, d.labels, rate=d.share),
        "affine": on_labels(noise.affine, angle=20.0),
        "boxes": on_labels(noise.boxes, num_classes=K),
        "build": config_of("choose"),
        "build_matrix": lambda d: noise.build_matrix(
            {"name": "flip", "rate": d.share}, K
        ),
        "chain": lambda d: noise.chain(
            partial(noise.flip, rate=d.share, num_classes=K),
            partial(noise.points, background=2),
        )(d.key, d.labels),
        "choose": chosen,
        "clean": on_labels(noise.clean),
        "coarsen": on_labels(noise.coarsen, factor=3, num_classes=K),
        "constant": on_labels(noise.constant, fill=1),
        "dilate": lambda d: [
            noise.dilate(d.key, d.labels, radius=radius) for radius in (2, 15)
        ],
        "elastic": on_labels(noise.elastic, amplitude=2.0),
        "erode": on_labels(noise.erode, radius=1),
        "flip": lambda d: [
            noise.flip(d.key, d.labels, rate=rate, num_classes=K, exact=exact)
            for rate in (d.share, d.shares)
            for exact in (False, True)
        ],
        "jitter_vertices": on_labels(noise.jitter_vertices, sigma=1.0),
        "markov": lambda d: noise.markov(
            d.key, d.labels, steps=3, theta1=d.share, num_classes=K
        ),
        "merge": lambda d: noise.merge(d.key, d.labels, radius=1, rate=d.share),
        "omit": lambda d: noise.omit(d.key, d.labels, rate=d.share),
        "only": lambda d: noise.only((0, 2), partial(noise.dilate, radius=1))(
            d.key, d.labels
        ),
        "per_example": lambda d: noise.per_example(
            partial(noise.flip, rate=d.share, num_classes=K)
        )(d.key, d.labels, d.ids),
        "points": on_labels(noise.points, count=2, radius=1),
        "random": lambda d: noise.random(d.key, d.labels, prior=d.shares),
        "random_boundary": lambda d: [
            noise.random_boundary(d.key, d.labels, radius=2, per=per)
            for per in ("image", "object")
        ],
        "sample": lambda d: [
            noise.sample(d.key, d.labels, fraction=d.share, exact=exact)
            for exact in (False, True)
        ],
        "scribbles": lambda d: noise.scribbles(d.key, d.labels, length=9 * d.share),
        "shift_pixels": on_labels(noise.shift_pixels, radius=2),
        "shuffle": on_labels(noise.shuffle, num_classes=K),
        "simplify": lambda d: noise.simplify(d.key, d.labels, tolerance=d.share),
        "skeletonize": on_labels(noise.skeletonize),
        "transition": lambda d: noise.transition(d.key, d.labels, matrix=d.matrix),
        "translate": on_labels(noise.translate, shift=2),
    },
    "density": {
        "adaptive": lambda d: density.adaptive(d.labels, K, neighbours=3),
        "effective_pixels": lambda d: density.effective_pixels(
            d.labels, bandwidth=d.share
        ),
        "invert": lambda d: density.invert(d.probabilities, d.matrix, pixels=9.0),
        "position": lambda d: density.position(d.labels, K),
        "select_bandwidth": lambda d: density.select_bandwidth(
            d.labels, K, (1.0, 2 + d.share)
        ),
        "soft_density": lambda d: density.soft_density(d.probabilities, bandwidth=2.0),
        "spatial_density": lambda d: density.spatial_density(
            d.labels, K, bandwidth=1 + d.share
        ),
        "weighted_sum": lambda d: density.weighted_sum(d.scores, bandwidth=2.0),
    },
    "information": {
        "boundary_profile": lambda d: information.boundary_profile(
            d.other, d.labels, K, max_distance=4
        ),
        "describe": lambda d: information.describe(d.matrix),
        "divergence": lambda d: [
            information.divergence(d.probabilities, d.probabilities[::-1], kind=kind)
            for kind in information.DIVERGENCES
        ],
        "effective_labels": lambda d: information.effective_labels(d.matrix, d.shares),
        "entropy": lambda d: information.entropy(d.probabilities),
        "normalised_spatial_information": lambda d: (
            information.normalised_spatial_information(d.probabilities)
        ),
        "semantic_information": lambda d: information.semantic_information(
            d.matrix, d.shares
        ),
        "spatial_information": lambda d: information.spatial_information(
            d.probabilities
        ),
        "spatial_information_bias": lambda d: information.spatial_information_bias(
            d.shares, 9 * np.ones(SHAPE)
        ),
    },
    "morphology": {
        "closing": on_mask(morphology.closing, 1),
        "components": on_mask(morphology.components),
        "dilate": on_mask(morphology.dilate, 1),
        "distance": on_mask(morphology.distance),
        "erode": on_mask(morphology.erode, 1),
        "fill_holes": on_mask(morphology.fill_holes),
        "maximum": lambda d: morphology.maximum(d.labels, 13),
        "opening": on_mask(morphology.opening, 1),
        "roots": lambda d: morphology.roots(d.labels),
        "skeletonize": on_mask(morphology.skeletonize),
        "skeletonize_classes": lambda d: morphology.skeletonize_classes(d.labels),
    },
    "ntm": {
        "as_matrix": lambda d: ntm.as_matrix(d.matrix, K, void=False),
        "as_prior": lambda d: ntm.as_prior(d.shares, K),
        "binary": lambda d: ntm.binary(foreground=d.share, background=0.1),
        "block": lambda d: ntm.block(K, groups=((0,), (1, 2)), rate=d.share),
        "compose": lambda d: ntm.compose(d.matrix, d.matrix[::-1]),
        "condition_number": lambda d: ntm.condition_number(d.matrix),
        "decode": lambda d: ntm.decode(d.probabilities, d.matrix),
        "estimate": lambda d: ntm.estimate(d.other, d.labels, K),
        "estimate_from_scores": lambda d: ntm.estimate_from_scores(
            d.probabilities, d.labels, unmix=True
        ),
        "from_counts": lambda d: ntm.from_counts(d.counts),
        "from_score_sums": lambda d: ntm.from_score_sums(
            ntm.score_sums(d.probabilities, d.labels)
        ),
        "joint_counts": lambda d: ntm.joint_counts(d.other, d.labels, K),
        "pair": lambda d: ntm.pair(K, rate=d.share),
        "rank": lambda d: ntm.rank(d.matrix),
        "sampling": lambda d: ntm.sampling(K, d.share),
        "score_sums": lambda d: ntm.score_sums(d.probabilities, d.labels),
        "singular_values": lambda d: ntm.singular_values(d.matrix),
        "symmetric": lambda d: ntm.symmetric(K, rate=d.shares),
        "threshold": lambda d: ntm.threshold(d.matrix[:2, :2]),
        "uniform": lambda d: ntm.uniform(K, d.shares),
        "validate": lambda d: ntm.validate(d.matrix, K),
    },
    "labels": {
        "check_ids": lambda d: labels.check_ids(jnp.asarray(d.labels), K),
        "class_counts": lambda d: labels.class_counts(d.labels, K),
        "from_mask": lambda d: labels.from_mask(d.binary * 255),
        "is_void": lambda d: labels.is_void(jnp.asarray(d.labels)),
        "one_hot": lambda d: labels.one_hot(d.labels, K),
        "replace_void": lambda d: labels.replace_void(d.labels, K),
        "validate": lambda d: labels.validate(d.labels, K),
    },
    "losses": {
        "build": lambda d: losses.build("cross_entropy")(d.logits, d.other),
        **{
            name: on_logits(getattr(losses, name))
            for name in ("cross_entropy", "cross_entropy_sums")
        },
        "soft_iou": on_logits(losses.soft_iou),
        "soft_iou_sums": on_logits(losses.soft_iou_sums),
        "dmi": on_logits(losses.dmi),
        "dmi_sums": on_logits(losses.dmi_sums),
        "dmi_iou": on_logits(losses.dmi_iou),
        "dmi_iou_sums": on_logits(losses.dmi_iou_sums),
    },
    "metrics": {
        "auc": lambda d: metrics.auc(d.histogram),
        "best_threshold": lambda d: metrics.best_threshold(d.histogram),
        "confusion_matrix": lambda d: metrics.confusion_matrix(d.other, d.labels, K),
        "counts_above": lambda d: metrics.counts_above(d.histogram),
        "from_confusion": lambda d: metrics.from_confusion(d.counts),
        "score_histogram": lambda d: metrics.score_histogram(
            d.scores, d.binary, num_bins=16
        ),
    },
    "decoding": {
        "analytic_threshold": lambda d: decoding.analytic_threshold(d.matrix[:2, :2]),
        "argmax_threshold": lambda d: decoding.argmax_threshold(),
        "is_foreground": lambda d: decoding.is_foreground(
            jnp.asarray(d.scores), d.share
        ),
        "measure": lambda d: decoding.measure(d.counts[None]),
        "predict": lambda d: decoding.predict(d.probabilities, d.matrix),
        "probabilities": lambda d: decoding.probabilities(d.logits),
        "statistics": statistics,
        "table": lambda d: decoding.table(
            statistics(d), statistics(d), d.matrix[:2, :2]
        ),
    },
    "unsupervised": {
        "chan_vese": on_image(unsupervised.chan_vese),
        "kmeans": on_image(unsupervised.kmeans),
        "li": on_image(unsupervised.li),
        "otsu": on_image(unsupervised.otsu),
        "segment": on_image(unsupervised.segment, "otsu"),
        "triangle": on_image(unsupervised.triangle),
    },
    "igtt": {
        "agreement": lambda d: [
            igtt.agreement(d.scores, criterion=criterion) for criterion in igtt.CRITERIA
        ],
        "best_mask": lambda d: igtt.best_mask(d.scores),
        "best_threshold": lambda d: igtt.best_threshold(d.scores),
        "ema": lambda d: igtt.ema(d.scores, d.mask, 3, decay=0.9),
        "ems": lambda d: igtt.ems(d.key, d.binary, fraction=d.share),
        "fit_boundary": lambda d: igtt.fit_boundary(d.mask, d.images, bandwidth=2.0),
        "intensity": lambda d: igtt.intensity(d.images),
        "local_contrast": lambda d: igtt.local_contrast(d.images, sigma_coarse=4.0),
        "masks": lambda d: igtt.masks(
            d.scores, images=d.images, min_radius=1, boundary_sigma=2.0
        ),
        "open_masks": lambda d: igtt.open_masks(d.mask, min_radius=1),
        "orient": lambda d: [
            igtt.orient(d.mask, images=d.images, polarity=polarity)
            for polarity in igtt.POLARITIES
        ],
        "soft_targets": lambda d: igtt.soft_targets(d.binary, bandwidth=2.0),
        "stability": lambda d: igtt.stability(d.mask, d.scores > 0.5),
        "target": lambda d: [
            igtt.target(name, fraction=d.share)(d.key, d.binary)
            for name in igtt.TARGETS
        ],
        "to_labels": lambda d: igtt.to_labels(d.mask),
        "update_labels": lambda d: igtt.update_labels(d.key, d.scores, d.ids),
    },
    "data.augment": {
        "brightness_contrast": lambda d: augment.brightness_contrast(
            d.key, d.images[0], brightness=d.share, contrast=0.1
        ),
        "crop": lambda d: augment.crop(
            d.key, d.images[0], d.labels[0], np.array([12, 10]), size=(4, 4)
        ),
        "dihedral": lambda d: augment.dihedral(
            d.key, d.images[0, :8, :8], d.labels[0, :8, :8], flip=True, rot90=True
        ),
        "illumination": lambda d: augment.illumination(
            d.key, d.images[0], amplitude=d.share, modulation=0.2
        ),
    },
    "models": {
        "build": network,
        "compiler_options": lambda d: models.compiler_options(),
    },
    "auditing": {
        "add": lambda d: auditing.add(compared(d), compared(d)),
        "bootstrap": lambda d: auditing.bootstrap(joints(d), draws=9),
        "bucket": lambda d: auditing.bucket(12),
        "compare": compared,
        "duplicates": lambda d: auditing.duplicates(examined(d)),
        "error_kinds": lambda d: auditing.error_kinds(compared(d)),
        "evidence": lambda d: auditing.evidence(compared(d)),
        "examine": examined,
        "framed": lambda d: auditing.framed(d.labels[0], K),
        "outliers": lambda d: auditing.outliers(examined(d)),
        "overview": lambda d: auditing.overview(examined(d)),
        "transition": lambda d: auditing.transition(joints(d), draws=9),
        "verdict": lambda d: auditing.verdict(compared(d)),
    },
}


def functions_of(module: str) -> set[str]:
    found = importlib.import_module(f"metaseg.{module}")
    return {
        name
        for name in found.__all__
        if callable(getattr(found, name))
        and hasattr(getattr(found, name), "__qualname__")
        and not isinstance(getattr(found, name), type)
    }


@pytest.mark.parametrize("module", CALLS)
def test_every_public_function_has_a_call(module):
    assert set(CALLS[module]) == functions_of(module) - {"NoiseFn", "SumsFn"}


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Collects the names of the programs that are compiled."""
    found: list[str] = []

    def listen(event: str, duration: float, **more: Any) -> None:
        del duration
        if event == _COMPILATION:
            found.append(str(more.get("fun_name", "?")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_loop_with_a_closure_compiles_at_each_call():
    def doubled(value: float) -> jax.Array:
        return jax.lax.fori_loop(0, 3, lambda _, x: x * value, jnp.float32(1))

    doubled(2.0)
    with compilations() as found:
        doubled(3.0)
    assert found


def test_a_batch_of_examples_compiles_once_too():
    def call(d: Drawn) -> Any:
        points = partial(noise.points, background=2, radius=1)  # as in CALLS
        chosen = noise.choose(points, noise.clean)
        return noise.per_example(chosen)(d.key, d.labels, d.ids)

    call(draw(0))
    with compilations() as found:
        call(draw(1))
    assert found == []


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in CALLS for name in CALLS[module]]
)
def test_the_second_eager_call_compiles_nothing(module, name):
    call = CALLS[module][name]
    call(draw(0))
    with compilations() as found:
        call(draw(1))
    assert found == []
