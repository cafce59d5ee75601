"""Where the lines and signs of the page's drawings lie; `drawing.svg.j2` has the elements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dareu.report.figures import MODELS, show
from dareu.report.templates import template

Point = tuple[float, float]
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DRAWN = ("original", "retrained", "unlearned")  # the last lies on top


@dataclass(frozen=True)
class Axes:
    """A box of `w` × `h` units at (`left`, `top`), and the ranges of the values drawn into it."""

    left: float
    top: float
    w: float
    h: float
    x: Point = (0.0, 1.0)
    y: Point = (0.0, 1.0)

    @property
    def right(self) -> float:
        return self.left + self.w

    @property
    def bottom(self) -> float:
        return self.top + self.h

    def across(self, value: float) -> float:
        """Where a value of x lies."""
        return self.left + (value - self.x[0]) / (self.x[1] - self.x[0]) * self.w

    def down(self, value: float) -> float:
        """Where a value of y lies."""
        return self.top + (1 - (value - self.y[0]) / (self.y[1] - self.y[0])) * self.h

    def at(self, p: Point) -> Point:
        """Where a pair of values lies."""
        return self.across(p[0]), self.down(p[1])


def _drawn(name: str, *data: object) -> Markup:
    """The drawing that the macro `name` makes of `data`."""
    return Markup(getattr(template("drawing.svg.j2").module, name)(*data))


def plane(points: Mapping[str, Point]) -> Markup:
    """Forget ROUGE (x) against retain ROUGE (y), both 0 to 1 and to one scale, with rings of equal distance.

    `points` has any of original, retrained, unlearned. The dashed line is the distance that is left.
    """
    axes = Axes(50.0, 14.0, 376.0, 338.0, x=(-0.123, 1.123), y=(-0.06, 1.06))
    unit = axes.h / (axes.y[1] - axes.y[0])
    return _drawn("plane", axes, {model: axes.at(point) for model, point in points.items()}, unit, FIFTHS)


def strips(rows: Sequence[tuple[str, Mapping[str, float | None]]]) -> Markup:
    """One line a figure from 0 to 1, each model a mark on it."""
    row_height = 37.0
    axes = Axes(142.0, 6.0, 278.0, row_height * len(rows))
    lines = []
    for i, (name, values) in enumerate(rows):
        y = axes.top + row_height * (i + 0.5)
        places = {m: (axes.across(v), y) for m in MODELS if (v := values.get(m)) is not None}
        lines.append((name, y, places))
    return _drawn("strips", axes, lines, QUARTERS, DRAWN)


def curve(steps: Sequence[float], values: Sequence[float]) -> Markup:
    """A line through (step, value), stretched to whatever box it is put in (200 x 60 units)."""
    pad = (max(values) - min(values)) * 0.08 or 1.0
    first, last = min(steps), max(steps)
    if first == last:  # one step: a short level line
        steps, values, first, last = [first - 1, first + 1], [*values, *values], first - 2, first + 2
    axes = Axes(0.0, 0.0, 200.0, 60.0, (first, last), (min(values) - pad, max(values) + pad))
    points = [axes.at(p) for p in zip(steps, values, strict=True)]
    return _drawn("curve", points, [(points[0][0], 60.0), *points, (points[-1][0], 60.0)])


def lines(courses: Mapping[str, Sequence[Point]], x_range: Point) -> Markup:
    """One line a model through its points, y from 0 to 1, with ticks at the ends and the middle of the x axis."""
    axes = Axes(38.0, 10.0, 270.0, 154.0, x_range)
    values = [x_range[0] + part * (x_range[1] - x_range[0]) for part in (0.0, 0.5, 1.0)]
    ticks = [(x, f"{x:g}" if x_range[1] > 1 else show(x, 2)) for x in values]
    places = {m: [axes.at(p) for p in courses[m]] for m in MODELS if courses.get(m)}
    return _drawn("courses", axes, (0.0, 0.5, 1.0), ticks, places, "Lines of all models", False)


def rounds(values: Mapping[str, Sequence[float | None]]) -> Markup:
    """Each model's value (0 to 1) round by round; the line goes on where a round has none."""
    count = max(len(each) for each in values.values())
    axes = Axes(34.0, 12.0, 272.0, 154.0, (0.6, max(count, 2) + 0.4))
    every = -(-count // 10)
    ticks = [(i, str(i)) for i in range(1, count + 1) if (i - 1) % every == 0 or i == count]
    places = {
        m: [axes.at((i, min(max(v, 0.0), 1.0))) for i, v in enumerate(values[m], start=1) if v is not None]
        for m in DRAWN
        if m in values
    }
    return _drawn("courses", axes, QUARTERS, ticks, places, "Value of each model, round by round", True)
