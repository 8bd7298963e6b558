"""Independent versions of noises in NumPy and SciPy, to test `metaseg.noise` against.

They take binary maps `[H, W]`, true for foreground, and are simple and slow. Imports
nothing of metaseg.
"""

import numpy as np
import scipy.ndimage as ndi

_FOUR = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up


def dice(a, b):
    """`2 |a and b| / (|a| + |b|)`; 1 if both are empty."""
    total = np.sum(a) + np.sum(b)
    return 2 * np.sum(a & b) / total if total else 1.0


def markov(rng, mask, steps, theta1, theta2, theta3, blur):
    """Markov boundary noise of SpatialCorrection (Yao et al., ICLR 2023).

    Args:
      rng: NumPy generator.
      mask: bool `[H, W]`.
      steps: Number of steps.
      theta1: Probability that a step flips the outer boundary, not the inner one.
      theta2: Probability that a pixel of the boundary flips in a step.
      theta3: Probability that a pixel flips after the last step.
      blur: Standard deviation of the final Gaussian in pixels; 0 for no smoothing.
    """
    mask = mask.copy()
    for _ in range(steps):
        outer = rng.random() < theta1
        boundary = _beside(mask) & ~mask if outer else _beside(~mask) & mask
        mask ^= boundary & (rng.random(mask.shape) < theta2)
    mask ^= rng.random(mask.shape) < theta3
    return _smooth(mask, blur) if blur else mask


def _beside(mask):
    """Returns the pixels that share an edge with a pixel of the mask."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any(
        [padded[1 + r : 1 + r + height, 1 + c : 1 + c + width] for r, c in _FOUR],
        axis=0,
    )


def _smooth(mask, blur):
    offset = np.arange(-2, 3)
    weights = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * blur**2))
    values = mask.astype(np.float64)
    return ndi.correlate(values, weights / weights.sum(), mode="mirror") > 0.5


def simplify(mask, tolerance):
    """The mask inside its outlines' Douglas-Peucker polygons.

    Args:
      mask: bool `[H, W]`.
      tolerance: pixels.
    """
    return _inside(_polygons(mask, tolerance), mask.shape)


def jitter_vertices(rng, mask, sigma, tolerance):
    """As `simplify`, but every vertex first moves by N(0, sigma^2) along both axes.

    Args:
      rng: NumPy generator.
      mask: bool `[H, W]`.
      sigma: pixels.
      tolerance: pixels.
    """
    polygons = [
        polygon + rng.normal(0, sigma, polygon.shape)
        for polygon in _polygons(mask, tolerance)
    ]
    return _inside(polygons, mask.shape)


def _polygons(mask, tolerance):
    return [_thinned(outline, tolerance) for outline in _outlines(mask)]


def _outlines(mask):
    """Vertices of each outline of the 4-connected foreground, float64 `[N, 2]`.

    Each vertex is the middle of an edge between a foreground pixel and a 4-neighbour
    that is not (outside of the image is background). One walks with the foreground
    on the right, from edge to edge through cells of 2 x 2 pixels.

    The first vertex is a convention of `skimage.measure.find_contours`: where the step
    through the outline's last cell in raster order ends. Points equally far from a
    chord make the polygon depend on it.
    """
    padded = np.pad(mask, 1).tolist()
    waiting = {
        (r + 1, c + 1, d)
        for r, c in np.argwhere(mask).tolist()
        for d, (down, right) in enumerate(_FOUR)
        if not padded[r + 1 + down][c + 1 + right]
    }
    outlines = []
    while waiting:
        edge = min(waiting)
        vertices, cells = [], []
        while edge in waiting:
            waiting.remove(edge)
            edge, cell = _next_edge(padded, edge)
            r, c, d = edge
            vertices.append((r + _FOUR[d][0] / 2 - 1, c + _FOUR[d][1] / 2 - 1))
            cells.append(cell)
        first = cells.index(max(cells))
        outlines.append(np.roll(np.array(vertices), -first, axis=0))
    return outlines


def _next_edge(padded, edge):
    """The next edge, and the cell between: row and column of its upper left pixel.

    An edge is a foreground pixel and the direction to its background neighbour; the
    walk goes on clockwise around the foreground.
    """
    r, c, d = edge
    turn = (d + 1) % 4
    (out_r, out_c), (on_r, on_c) = _FOUR[d], _FOUR[turn]
    cell = (r + min(out_r + on_r, 0), c + min(out_c + on_c, 0))
    if not padded[r + on_r][c + on_c]:
        return (r, c, turn), cell
    if not padded[r + on_r + out_r][c + on_c + out_c]:
        return (r + on_r, c + on_c, d), cell
    return (r + on_r + out_r, c + on_c + out_c, (d - 1) % 4), cell


def _thinned(outline, tolerance):
    """Douglas-Peucker on the closed curve from its first vertex back to it.

    Its first chord has no length, so that the vertex farthest from the first is kept
    first, if it is farther than `tolerance` (the rule of `approximate_polygon`).

    Returns:
      The vertices kept, in order and each once, `[M, 2]`.
    """
    if tolerance <= 0:
        return outline
    closed = np.concatenate([outline, outline[:1]]) - outline[0]

    def kept_between(start, end):
        if end - start < 2:
            return []
        far = _distances(closed[start + 1 : end], closed[start], closed[end])
        if far.max() <= tolerance:
            return []
        middle = start + 1 + int(np.argmax(far))
        return [*kept_between(start, middle), middle, *kept_between(middle, end)]

    return outline[[0, *kept_between(0, len(outline))]]


def _distances(points, start, end):
    """From points `[N, 2]` to the segment between two others.

    On a pixel grid many points are equally far, so that rounding decides which one is
    kept. Hence the formula for the line's distance is that of `approximate_polygon`:
    with the angle of its normal.
    """
    along = end - start
    normal_angle = -np.arctan2(*along)
    down, right = np.cos(normal_angle), np.sin(normal_angle)
    offset = start[0] * down + start[1] * right
    from_line = np.abs(points[:, 0] * down + points[:, 1] * right - offset)
    from_ends = np.minimum(np.hypot(*(points - start).T), np.hypot(*(points - end).T))
    between = ((points - start) @ along > 0) & ((end - points) @ along > 0)
    return np.where(between, from_line, from_ends)


def _inside(polygons, shape):
    """Pixels whose centres have an odd number of polygon edges to their left.

    An edge counts if it goes through or left of the centre, and has its upper end but
    not its lower end at the centre's row.
    """
    columns = np.arange(shape[1])
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        for tail, head in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            (r0, c0), (r1, c1) = sorted([tuple(tail), tuple(head)])
            first, end = np.ceil([r0, r1]).clip(0, shape[0]).astype(int)
            rows = np.arange(first, end)[:, None]
            inside[first:end] ^= (columns - c0) * (r1 - r0) >= (rows - r0) * (c1 - c0)
    return inside
