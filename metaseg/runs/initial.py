"""Weights of another run as those that training starts from."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from metaseg import files, models, prediction, training
from metaseg.errors import InputError

__all__ = ["Initial", "load"]


class Initial(NamedTuple):
    """Weights of another run.

    Attributes:
      folder: Work folder of the run.
      variables: "params" and "batch_stats".
      described: Which weights of the run they are.
      head: Paths of the arrays that start anew, as the number of classes differs.
      note: What starts anew and why; may be empty.
    """

    folder: str
    variables: Mapping[str, Any]
    described: str
    head: frozenset[str]
    note: str

    def __str__(self) -> str:
        """Returns what training starts from, for the terminal."""
        note = f"; {self.note}" if self.note else ""
        return f"starting from {self.folder}, weights of {self.described}{note}"

    def plain(self) -> dict[str, Any]:
        """Returns what `results.json` holds about it."""
        return {"folder": self.folder, "weights": self.described, "note": self.note}

    def put_into(self, state: training.TrainState) -> training.TrainState:
        """Returns a train state with these parameters and batch statistics.

        Args:
          state: State before the first step; arrays of the head are kept.

        Raises:
          InputError: If the networks differ; the message names an array and its shapes.
        """
        own = {"params": state.params, "batch_stats": state.batch_stats}
        given, drawn = _by_path(self.variables), _by_path(own)
        every = sorted(given.keys() | drawn.keys())
        for path in sorted(every, key=lambda path: not path.startswith("params/")):
            self._check(path, given.get(path), drawn.get(path))
        leaves = [
            leaf if path in self.head else jnp.asarray(given[path], leaf.dtype)
            for path, leaf in drawn.items()
        ]
        tree = jax.tree.unflatten(jax.tree.structure(own), leaves)
        ema = state.ema_params
        if ema is not None:
            ema = jax.tree.map(jnp.array, tree)
        return state.replace(**tree, ema_params=ema)

    def _check(self, path: str, given: Any, drawn: Any) -> None:
        shapes = [None if x is None else list(x.shape) for x in (given, drawn)]
        if shapes[0] == shapes[1] or (path in self.head and None not in shapes):
            return
        there, here = ("no such array" if x is None else f"shape {x}" for x in shapes)
        raise InputError(
            f"config.training.init_from: '{self.folder}' has {there} for {path}, this "
            f"network {here}; expected a run with the same config.model and the same "
            "number of channels"
        )


def load(folder: str | os.PathLike[str], num_classes: int) -> Initial:
    """Loads the weights of a run, those that it predicts with.

    Args:
      folder: Work folder of a run.
      num_classes: Number of classes K of the run that is to start. If the other run has
        another number, the arrays whose shape follows from it start anew.

    Returns:
      The weights.

    Raises:
      InputError: If the folder holds no run with weights.
    """
    place = files.expanded(folder)
    predictor = prediction.load(place)
    head, note = frozenset[str](), ""
    if predictor.num_classes != num_classes:
        config = ConfigDict(files.read_run(place, "config.json"))
        other = models.build(config.model, num_classes)
        one, two = (
            {path: x.shape for path, x in _by_path(_shapes(model, predictor)).items()}
            for model in (predictor.model, other)
        )
        head = frozenset(path for path in one if one[path] != two.get(path))
        layers = sorted({path.rpartition("/")[0] for path in head})
        note = (
            f"{predictor.num_classes} classes there, {num_classes} here: "
            f"{', '.join(layers)} starts anew"
        )
    return Initial(os.fspath(place), predictor.variables, predictor.weights, head, note)


def _shapes(model: nn.Module, predictor: prediction.Predictor) -> Any:
    """Returns the shapes of a network's variables."""
    side = getattr(model, "stride", 1)
    blank = jnp.zeros((1, side, side, predictor.channels), jnp.float32)
    init = partial(model.init, train=False)
    return dict(jax.eval_shape(init, jax.random.key(0), blank))


def _by_path(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a tree by names such as "params/Conv_0/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
