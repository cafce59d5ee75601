"""Inline drawings. Colours are CSS classes of the page, so that they follow its light and its dark scheme."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from dareu.report.figures import MODELS, show

Point = tuple[float, float]
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DRAWN = ("original", "retrained", "unlearned")  # the last lies on top


def tag(name: str, content: str = "", **attributes: object) -> Markup:
    """One element; `class_` and `stroke_width` read as `class` and `stroke-width`; escape `content`."""
    parts = []
    for key, entry in attributes.items():
        shown = f"{entry:.2f}".rstrip("0").rstrip(".") if isinstance(entry, float) else str(entry)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    return Markup(f"<{name}{''.join(parts)}>{content}</{name}>")


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start", **more: Any) -> Markup:
    return tag("text", escape(content), x=x, y=y, class_=class_, text_anchor=anchor, **more)


def line(start: Point, end: Point, class_: str) -> Markup:
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def path(points: Sequence[Point], class_: str) -> Markup:
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_, fill="none")


def picture(content: Sequence[Markup], width: float, height: float, class_: str, label: str) -> Markup:
    """A drawing of this size; `label` says what it shows to those who do not see it."""
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", Markup("").join(content), viewBox=box, class_=class_, role="img", aria_label=label)


def mark(model: str, x: float, y: float) -> Markup:
    """The sign of a model: the retrained one is a ring, a target for the unlearned one's dot."""
    radius = {"original": 5.0, "retrained": 9.0, "unlearned": 5.5}[model]
    return tag("circle", cx=x, cy=y, r=radius, class_=f"mark {model}")


def key(model: str) -> Markup:
    """The sign alone, for a legend."""
    return tag("svg", mark(model, 11, 11), viewBox="0 0 22 22", class_="key", aria_hidden="true")


@dataclass(frozen=True)
class Axes:
    """A box of `w` × `h` units at (`left`, `top`), and the ranges of the values drawn into it."""

    left: float
    top: float
    w: float
    h: float
    x: Point = (0.0, 1.0)
    y: Point = (0.0, 1.0)

    def at(self, p: Point) -> Point:
        """Where a pair of values lies."""
        across, up = ((v - low) / (high - low) for v, (low, high) in zip(p, (self.x, self.y), strict=True))
        return self.left + across * self.w, self.top + (1 - up) * self.h

    def rows(self, values: Sequence[float]) -> list[Markup]:
        """A line across the box at each value of y, with its number."""
        out = []
        for value in values:
            _, y = self.at((self.x[0], value))
            out.append(line((self.left, y), (self.left + self.w, y), "grid"))
            out.append(text(self.left - 7, y + 4, show(value, 2), "tick", "end"))
        return out

    def columns(self, values: Sequence[float]) -> list[Markup]:
        """A line up the box at each value of x, with its number."""
        out = []
        for value in values:
            x, _ = self.at((value, self.y[0]))
            out.append(line((x, self.top), (x, self.top + self.h), "grid"))
            out.append(self.below(value, show(value, 2)))
        return out

    def below(self, value: float, shown: str) -> Markup:
        """What stands below the box at a value of x."""
        return text(self.at((value, self.y[0]))[0], self.top + self.h + 17, shown, "tick", "middle")

    def ground(self, **more: Any) -> Markup:
        return tag("rect", x=self.left, y=self.top, width=self.w, height=self.h, rx=6, **more)


def plane(points: Mapping[str, Point]) -> Markup:
    """Forget ROUGE (x) against retain ROUGE (y), both 0 to 1 and to one scale, with rings of equal distance.

    `points` has any of original, retrained, unlearned. The dashed line is the distance that is left.
    """
    axes = Axes(50.0, 14.0, 376.0, 338.0, x=(-0.123, 1.123), y=(-0.06, 1.06))
    places = {model: axes.at(point) for model, point in points.items()}
    out = [tag("clipPath", axes.ground(), id="plane-clip"), axes.ground(class_="ground")]
    out += [*axes.columns(FIFTHS), *axes.rows(FIFTHS)]
    out.append(text(axes.left + axes.w / 2, 392, "forget ROUGE-L", "axis", "middle"))
    out.append(
        text(-(axes.top + axes.h / 2), 13, "retain ROUGE-L", "axis", "middle", transform="rotate(-90)")
    )
    if "retrained" in places:
        x, y = places["retrained"]
        unit = axes.h / (axes.y[1] - axes.y[0])
        rings = [tag("circle", cx=x, cy=y, r=ring * unit, class_="ring") for ring in reversed(FIFTHS[1:])]
        out.append(tag("g", Markup("").join(rings), clip_path="url(#plane-clip)"))
    if "unlearned" in places:
        for other, class_ in (("original", "way"), ("retrained", "left")):
            if other in places:
                out.append(line(places[other], places["unlearned"], class_))
    out += [mark(m, *places[m]) for m in ("retrained", "original", "unlearned") if m in places]
    return picture(out, 440, 400, "plane", "Forget and retain ROUGE of the models")


def strips(rows: Sequence[tuple[str, Mapping[str, float | None]]]) -> Markup:
    """One line a figure from 0 to 1, each model a mark on it."""
    row_height = 37.0
    axes = Axes(142.0, 6.0, 278.0, row_height * len(rows))
    out = axes.columns(QUARTERS)
    for i, (name, values) in enumerate(rows):
        y = axes.top + row_height * (i + 0.5)
        places = {m: (axes.at((v, 0.0))[0], y) for m in MODELS if (v := values.get(m)) is not None}
        out += [text(0, y + 4, name, "axis"), line((axes.left, y), (axes.left + axes.w, y), "track")]
        if not places:
            out.append(text(axes.left + 8, y - 5, "not computed", "tick"))
        if "retrained" in places and "unlearned" in places:
            out.append(line(places["retrained"], places["unlearned"], "gap"))
        out += [mark(m, *places[m]) for m in DRAWN if m in places]
    return picture(out, 440, axes.h + 30, "strips", "Every figure of every model on a line from 0 to 1")


def curve(steps: Sequence[float], values: Sequence[float]) -> Markup:
    """A line through (step, value), stretched to whatever box it is put in (200 x 60 units)."""
    pad = (max(values) - min(values)) * 0.08 or 1.0
    first, last = min(steps), max(steps)
    if first == last:  # one step: a short level line
        steps, values, first, last = [first - 1, first + 1], [*values, *values], first - 2, first + 2
    axes = Axes(0.0, 0.0, 200.0, 60.0, (first, last), (min(values) - pad, max(values) + pad))
    points = [axes.at(p) for p in zip(steps, values, strict=True)]
    around = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(points[0][0], 60.0), *points, (points[-1][0], 60.0)])
    content = tag("polygon", points=around, class_="area") + path(points, "line")
    shape: dict[str, Any] = {"viewBox": "0 0 200 60", "preserveAspectRatio": "none", "class_": "curve"}
    return tag("svg", content, aria_hidden="true", **shape)


def lines(courses: Mapping[str, Sequence[Point]], x_range: Point) -> Markup:
    """One line a model through its points, y from 0 to 1, with ticks at the ends and the middle of the x axis."""
    axes = Axes(38.0, 10.0, 270.0, 154.0, x_range)
    out = [axes.ground(class_="ground"), *axes.rows((0.0, 0.5, 1.0))]
    for part in (0.0, 0.5, 1.0):
        x = x_range[0] + part * (x_range[1] - x_range[0])
        out.append(axes.below(x, f"{x:g}" if x_range[1] > 1 else show(x, 2)))
    for model in MODELS:
        if points := courses.get(model):
            out.append(path([axes.at(p) for p in points], f"course {model}"))
    return picture(out, 320, 190, "strips", "Lines of all models")


def rounds(values: Mapping[str, Sequence[float | None]]) -> Markup:
    """Each model's value (0 to 1) round by round; the line goes on where a round has none."""
    count = max(len(each) for each in values.values())
    axes = Axes(34.0, 12.0, 272.0, 154.0, (0.6, max(count, 2) + 0.4))
    out = axes.rows(QUARTERS)
    every = -(-count // 10)
    out += [axes.below(i, str(i)) for i in range(1, count + 1) if (i - 1) % every == 0 or i == count]
    for model in DRAWN:
        numbered = enumerate(values.get(model, ()), start=1)
        places = [axes.at((i, min(max(v, 0.0), 1.0))) for i, v in numbered if v is not None]
        out += [path(places, f"course {model}"), *(mark(model, *place) for place in places)]
    return picture(out, 320, 190, "strips", "Value of each model, round by round")
