"""How label maps are stored, and what their values mean.

    surveys = [(name, survey(values)) for name, values in stored]
    encoding = recognise(surveys)  # of all maps together
    print(encoding.describe())
    labels = decode(values, encoding, where=name)  # uint8 class ids, 255 is void

- options: text of a command line or of a file -> class ids of values and colours
- surveying: one label map -> what it holds
- recognising: the surveys of all label maps -> their encoding, or why it is not clear
- decoding: stored values -> class ids, instance ids

Host-side NumPy; imports no jax, so that worker processes start fast. May import
`data.file_options` and `instances`.
"""

from metaseg.data.label_encoding.decoding import Encoding, decode, fits, instance_ids
from metaseg.data.label_encoding.options import (
    ValueTable,
    check,
    parse_colors,
    parse_values,
)
from metaseg.data.label_encoding.recognising import recognise
from metaseg.data.label_encoding.surveying import Survey, survey

__all__ = [
    "Encoding",
    "Survey",
    "ValueTable",
    "check",
    "decode",
    "fits",
    "instance_ids",
    "parse_colors",
    "parse_values",
    "recognise",
    "survey",
]
