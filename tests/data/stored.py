"""Writes a small prepared data set as TFDS does it, for tests of what reads it."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SPLITS = ("train", "val", "test")


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def random_examples(rng, count, *, dtype=np.uint8, channels=1, num_classes=2, low=8):
    """`count` pairs of image and label of different sizes."""
    pairs = []
    for _ in range(count):
        height, width = rng.integers(low, 13, 2)
        image = rng.integers(0, 200, (height, width, channels)).astype(dtype)
        label = rng.integers(0, num_classes, (height, width)).astype(np.uint8)
        label[0, 0] = 255
        pairs.append((image, label))
    return pairs


def write(data_dir, examples, *, num_classes=2, class_names=None, broken=None):
    """Writes `{split: [(image, label), ...]}` as tiny/plain/1.0.0; returns its path.

    Args:
      broken: `(split, row)` of an example whose image is cut in half.
    """
    first = examples["train"][0][0]
    channels, dtype = first.shape[-1], first.dtype
    as_png = dtype == np.uint8
    names = {s: [f"{s}-{i}" for i in range(len(examples[s]))] for s in SPLITS}

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        BUILDER_CONFIGS = (
            tfds.core.BuilderConfig(name="plain", version=tfds.core.Version("1.0.0")),
        )

        def _info(self):
            shape = (None, None, channels)
            return tfds.core.DatasetInfo(
                builder=self,
                disable_shuffling=True,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=shape, encoding_format="png")
                        if as_png
                        else tfds.features.Tensor(
                            shape=shape, dtype=dtype, encoding="zlib"
                        ),
                        "label": tfds.features.Image(
                            shape=(None, None, 1), encoding_format="png"
                        ),
                        "name": tfds.features.Text(),
                    }
                ),
                metadata=tfds.core.MetadataDict(
                    metaseg=1,
                    num_classes=num_classes,
                    class_names=class_names,
                    channels=channels,
                    splits={
                        s: {
                            "names": names[s],
                            "sizes": [list(y.shape) for _, y in examples[s]],
                        }
                        for s in SPLITS
                    },
                ),
            )

        def _split_generators(self, dl_manager):
            return {s: self._generate_examples(s) for s in SPLITS}

        def _generate_examples(self, split):
            for i, (image, label) in enumerate(examples[split]):
                if as_png:
                    image = png(image[..., 0] if channels == 1 else image)
                if broken == (split, i):
                    image = image[: len(image) // 2]
                yield i, {"image": image, "label": png(label), "name": names[split][i]}

    tfds.disable_progress_bar()
    builder = Tiny(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return builder.data_path
