"""The surveys of all label maps -> their encoding, or one line on why it is not clear.

Nothing is guessed: values that fit two encodings are refused, with the option that
settles which one it is.
"""

from collections.abc import Sequence

import numpy as np

from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.label_encoding import options as options_lib
from metaseg.data.label_encoding import refusing, surveying
from metaseg.data.label_encoding.decoding import Encoding
from metaseg.data.label_encoding.label_maps import WHITE, LabelMaps, some
from metaseg.data.label_encoding.options import VOID, ValueTable
from metaseg.data.label_encoding.surveying import Survey
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = ["recognise"]

_TRACE = 0.01  # a smaller share of class pixels, of those of 255, is no class
_SPARSE = 0.9  # a larger share of void is that of points and scribbles
_OBJECTS = {
    "union": "each object is class 1",
    "border": "each object is class 1, and class 2 where objects touch",
    "void": "each object is class 1, and void where objects touch",
}


def recognise(
    surveys: Sequence[tuple[str, Survey]],
    *,
    options: FileOptions = DEFAULT,
    num_classes: int = 0,
    fixed_classes: bool = False,
) -> Encoding:
    """Finds how the label maps of a folder store class ids.

    Without options that say more, label maps hold class ids 0 to K - 1 and 255 for
    void, or masks of 0 and 255. Instance ids, grey levels, soft masks, colours, and
    maps that contradict each other are refused.

    Args:
      surveys: Name and survey of each label map, in any order.
      options: How label files are read; those of `survey`.
      num_classes: Number of classes K; 0: to be found. If it is told, values below K
        are class ids whatever they look like.
      fixed_classes: Whether `num_classes` cannot be changed, because it is that of a
        trained network. Then no message offers that.

    Returns:
      The encoding of all maps.

    Raises:
      InputError: If it is not clear what values mean, or an argument is wrong. The
        message has values, pixels, names and the options that help.
    """
    options_lib.check(options)
    if num_classes and not 2 <= num_classes <= VOID:
        raise InputError(
            f"num_classes: got {num_classes}, expected an integer in 2..{VOID}"
        )
    every = sorted(surveys, key=lambda one: one[0])
    maps = LabelMaps(every, options, fixed_classes)
    deep = maps.having(lambda one: one.kind == "deep")
    if deep:
        raise InputError(
            f"{deep.first}: {deep.surveys[0][1].dtype} values {deep.where(maps)};"
            " expected class ids, or colours of 8 bit"
        )
    if options.label_colors is not None:
        return _by_colors(maps, num_classes)
    refusing.colors(maps, listed=False)
    refusing.nonfinite(maps)
    if options.label_threshold is not None:
        threshold = float(options.label_threshold)
        refusing.unreached(maps, threshold)
        text = f"Labels: values of at least {threshold:g} are class 1, others class 0."
        return Encoding("threshold", num_classes or 2, threshold=threshold, text=text)
    refusing.fractions(maps)
    table = maps.table
    if options.instances:
        return _by_instances(maps, table, num_classes)
    if table.targets() - {0, VOID} or table.rest is not None:
        return _by_values(maps, table, num_classes)
    refusing.negative(maps)
    counts = maps.counts()
    if counts.keys() & {*WHITE} and not counts.keys() - {0, *WHITE}:
        both = maps.having(lambda one: one.counts.keys() >= {*WHITE})
        return (_ids if both else _masks)(maps, table, num_classes)
    return _ids(maps, table, num_classes)


def _ids(maps: LabelMaps, table: ValueTable, told: int) -> Encoding:
    """Class ids; `table` lists values that are background or void."""
    ids = maps.ids()
    if told:
        if maps.are_many() or (ids and ids[-1] >= told):
            refusing.values(maps, told, lambda v: v >= told and v != VOID)
    else:
        many = maps.are_many() or len(ids) >= refusing.MOST_FOUND
        if many or refusing.have_gaps(ids) or maps.are_objects():
            refusing.values(maps, told)
        refusing.not_from_zero(maps)
    num_classes = told or max(2, ids[-1] + 1 if ids else 2)
    void = _void(maps, num_classes)
    text = f"Labels are class ids 0 {'and' if num_classes == 2 else 'to'}"
    text += f" {num_classes - 1}"
    absent = sorted(set(range(1, num_classes)) - set(ids))
    if absent and not told:
        one = len(absent) == 1
        text += f"; {'class' if one else 'classes'} {some(absent)}"
        text += f" {'does' if one else 'do'} not occur"
    if maps.are_single() and not told:
        text += "; each is in one piece: for ids of objects, give `instances=union`"
    own = [(i, i) for i in [*range(num_classes), VOID]]
    return Encoding("ids", num_classes, _joined(table, own), text=f"{text}{void}.")


def _masks(maps: LabelMaps, table: ValueTable, told: int) -> Encoding:
    """Masks of 0 and 255; `table` lists values that are background or void."""
    if told > 2:
        refusing.two_classes(maps, told)
    white = maps.holding(lambda value: value in WHITE)
    found = [value for value in WHITE if value in maps.counts()]
    text = f"Labels are masks: {' and '.join(map(str, found))} is class 1"
    if not white.holding(lambda value: value == 0):
        text += f" (no label map holds both 0 and {found[0]})"
    own = [(0, 0), *((value, 1) for value in WHITE)]
    return Encoding(
        "masks", 2, _joined(table, own), text=f"{text}{_void_share(maps, set())}."
    )


def _void(maps: LabelMaps, num_classes: int) -> str:
    """Says what is void; refuses 255 that could be class 1."""
    marked = maps.holding(lambda value: value == VOID)
    classed = maps.holding(lambda value: value not in (0, VOID))
    both = classed.holding(lambda value: value == VOID)
    # A map of 255 alone is no mask where there are more than two classes.
    masks = marked.having(lambda one: num_classes == 2 or 0 in one.counts)
    if masks and classed and not both:
        refusing.mixed(maps, masks, classed)
    counts = maps.counts()
    of_classes = sum(counts[value] for value in maps.ids())
    pixels = sum(one.pixels for _, one in marked.surveys)
    trace = both and of_classes < _TRACE * counts[VOID]
    if trace and counts[VOID] < _SPARSE * pixels:
        refusing.trace(maps, both, marked)
    return _void_share(maps, {VOID})


def _void_share(maps: LabelMaps, marks: set[int]) -> str:
    """Says how much is void: the values `marks`, and what is listed as void."""

    def void(one: Survey) -> int:
        return one.listed.get(VOID, 0) + sum(one.counts.get(v, 0) for v in marks)

    found = maps.having(lambda one: void(one) > 0)
    if not found:
        return ""
    pixels = sum(one.pixels for _, one in maps.surveys)
    share = sum(void(one) for _, one in found.surveys) / pixels
    what = f"{VOID} is void" if marks else "void"
    return (
        f"; {what} in {len(found.surveys)} of"
        f" {count_of(len(maps.surveys), 'label map')}"
        f" ({100 * share:.3g} % of the pixels)"
    )


def _by_values(maps: LabelMaps, table: ValueTable, told: int) -> Encoding:
    """Listed values; other values are class ids, unless the table has a rest."""
    highest = max(table.targets() - {VOID}, default=0)
    num_classes = _enough(maps, "label_values", told, max(2, highest + 1))
    text = f"Labels: the stored values are class ids by '{table}'"
    if table.rest is None:
        refusing.unlisted(maps, num_classes)
        table = _joined(table, [(i, i) for i in [*range(num_classes), VOID]])
        text += "; other values are class ids themselves"
    return Encoding(
        "values", num_classes, table, text=f"{text}{_void_share(maps, {VOID})}."
    )


def _by_colors(maps: LabelMaps, told: int) -> Encoding:
    colors = options_lib.parse_colors(maps.options.label_colors)
    highest = max((i for i in colors.values() if i != VOID), default=0)
    num_classes = _enough(maps, "label_colors", told, max(2, highest + 1))
    refusing.colors(maps, listed=True)
    shown = some(f"#{r:02x}{g:02x}{b:02x} is {i}" for (r, g, b), i in colors.items())
    return Encoding(
        "colours",
        num_classes,
        surveying.color_table(colors),
        text=f"Labels: class ids by colour: {shown}{_void_share(maps, set())}.",
    )


def _by_instances(maps: LabelMaps, table: ValueTable, told: int) -> Encoding:
    """Ids of objects; `table` lists values that are background, an object or void."""
    refusing.negative(maps)
    ids = set(maps.ids()) - {*WHITE}
    for mark in WHITE:
        holding = maps.holding(mark.__eq__)
        near = any(value > mark // 2 for value in ids)
        if holding and not near and not (maps.are_many() and mark == VOID):
            raise InputError(
                f"{holding.first}: {holding.values([mark])} {holding.where(maps)}, far"
                f" above all other ids: an object, or void; expected"
                f" {maps.listing(f'{mark}={VOID}')} if it is void, or"
                f" {maps.listing(f'{mark}=1')} if it is an object"
            )
    choice = maps.options.instances
    num_classes = _enough(maps, "instances", told, 3 if choice == "border" else 2)
    text = f"Labels are ids of objects: {_OBJECTS[choice]}"
    text += _void_share(maps, set())
    return Encoding("instances", num_classes, table, instances=choice, text=f"{text}.")


def _enough(maps: LabelMaps, field: str, told: int, needed: int) -> int:
    """Returns the number of classes; refuses one that is too small."""
    if told and told < needed and maps.fixed:
        raise InputError(
            f"{field}: gives class ids up to {needed - 1}, expected ids below {told},"
            " the number of classes"
        )
    if told and told < needed:
        raise InputError(
            f"num_classes: got {told}, expected `num_classes={needed}` as `{field}`"
            f" gives class ids up to {needed - 1}"
        )
    return told or needed


def _joined(table: ValueTable, own: Sequence[tuple[int, int]]) -> ValueTable:
    """Adds class ids of values that the table does not list."""
    known = table.find(np.array([value for value, _ in own])) >= 0
    added = [(v, v, i) for (v, i), old in zip(own, known, strict=True) if not old]
    return ValueTable(tuple(sorted([*table.ranges, *added])), table.rest)
