"""Which examples make up which batch: a pure function of seed and step.

Data sets that fit stay on the device; the host sends row numbers only.
"""

import numpy as np

__all__ = ["batch_indices"]


def batch_indices(
    seed: int, start: int, num_steps: int, batch_size: int, num_examples: int
) -> np.ndarray:
    """Row numbers of the examples of some consecutive steps.

    The examples stream by in epochs, each in an order of its own, and batches are cut
    from the stream, across epochs too. The result follows from the arguments alone, so
    that a run can start anywhere.

    Args:
      seed: seed of the shuffling.
      start: the first step, from 0.
      num_steps: how many steps.
      batch_size: examples per step.
      num_examples: examples in the data set.

    Returns:
      int32 `[num_steps, batch_size]`.
    """
    first = start * batch_size
    last = (start + num_steps) * batch_size
    epochs = range(first // num_examples, -(-last // num_examples))
    stream = np.concatenate(
        [np.random.default_rng((seed, e)).permutation(num_examples) for e in epochs]
        or [np.zeros(0, np.int64)]
    )
    offset = first - epochs.start * num_examples
    rows = stream[offset : offset + last - first]
    return rows.reshape(num_steps, batch_size).astype(np.int32)
