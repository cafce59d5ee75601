"""Inline drawings. Colours are CSS classes of the page, so that they follow its light and its dark scheme."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

from dareu.report.figures import MODELS, show

Point = tuple[float, float]
Box = tuple[float, float, float, float]


def tag(name: str, content: str = "", **attributes: object) -> Markup:
    """One element; `class_` and `stroke_width` read as `class` and `stroke-width`; escape `content`."""
    parts = []
    for key, entry in attributes.items():
        shown = f"{entry:.2f}".rstrip("0").rstrip(".") if isinstance(entry, float) else str(entry)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    return Markup(f"<{name}{''.join(parts)}>{content}</{name}>")


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    return tag("text", escape(content), x=x, y=y, class_=class_, text_anchor=anchor)


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


def plane(points: Mapping[str, Point]) -> Markup:
    """Forget ROUGE (x) against retain ROUGE (y), both 0 to 1 and to one scale, with rings of equal distance.

    `points` has any of original, retrained, unlearned. The dashed line is the distance that is left.
    """
    width, height, left, top, right, bottom = 440.0, 400.0, 50.0, 14.0, 14.0, 48.0
    w, h = width - left - right, height - top - bottom
    xs, ys = [p[0] for p in points.values()], [p[1] for p in points.values()]
    unit = max((max(xs) - min(xs)) / w, (max(ys) - min(ys)) / h) * 1.3
    unit = min(max(unit, 0.3 / h), 1.12 / h)
    x0, y0 = _start(min(xs), max(xs), unit * w), _start(min(ys), max(ys), unit * h)

    def at(p: Point) -> Point:
        return left + (p[0] - x0) / unit, top + h - (p[1] - y0) / unit

    span = unit * h
    step = 0.2 if span > 0.75 else 0.1 if span > 0.35 else 0.05
    out = [tag("clipPath", tag("rect", x=left, y=top, width=w, height=h, rx=6), id="plane-clip")]
    out.append(tag("rect", x=left, y=top, width=w, height=h, rx=6, class_="ground"))
    for tick in _ticks(x0, x0 + unit * w, step):
        x, _ = at((tick, 0))
        out += [
            tag("line", x1=x, x2=x, y1=top, y2=top + h, class_="grid"),
            text(x, top + h + 17, show(tick, 2), "tick", "middle"),
        ]
    for tick in _ticks(y0, y0 + span, step):
        _, y = at((0, tick))
        out += [
            tag("line", x1=left, x2=left + w, y1=y, y2=y, class_="grid"),
            text(left - 8, y + 4, show(tick, 2), "tick", "end"),
        ]
    out.append(text(left + w / 2, height - 8, "forget ROUGE-L", "axis", "middle"))
    out.append(
        tag(
            "text",
            "retain ROUGE-L",
            x=-(top + h / 2),
            y=13,
            class_="axis",
            text_anchor="middle",
            transform="rotate(-90)",
        )
    )
    out += _links(points, at, step, unit)
    out += [mark(m, *at(points[m])) for m in ("retrained", "original", "unlearned") if m in points]
    out += _labels({m: at(points[m]) for m in MODELS if m in points}, (left, top, left + w, top + h))
    return picture(out, width, height, "plane", "Forget and retain ROUGE of the models")


def _start(low: float, high: float, span: float) -> float:
    """Start of an axis of length `span` around low..high, moved so that little of it lies outside 0..1."""
    start = (low + high - span) / 2
    slack = 0.06 * span
    if span >= 1 + slack:
        return 0.5 - span / 2
    return min(max(start, -slack), 1 + slack - span)


def _ticks(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(max(low, 0) / step - 1e-9), math.floor(min(high, 1) / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _links(
    points: Mapping[str, Point], at: Callable[[Point], Point], step: float, unit: float
) -> list[Markup]:
    """Rings around the retrained model, the way from the original, the distance that is left."""
    out: list[Markup] = []
    if "retrained" in points:
        cx, cy = at(points["retrained"])
        rings = [tag("circle", cx=cx, cy=cy, r=i * step / unit, class_="ring") for i in (4, 3, 2, 1)]
        out.append(tag("g", Markup("").join(rings), clip_path="url(#plane-clip)"))
    if "unlearned" in points:
        ux, uy = at(points["unlearned"])
        if "original" in points:
            ox, oy = at(points["original"])
            out.append(tag("line", x1=ox, y1=oy, x2=ux, y2=uy, class_="way"))
        if "retrained" in points:
            out.append(tag("line", x1=ux, y1=uy, x2=cx, y2=cy, class_="left"))
    return out


def _labels(marks: Mapping[str, Point], frame: Box) -> list[Markup]:
    """Names beside their marks, each in the first place that is free."""
    taken: list[Box] = [(x - 9, y - 9, x + 9, y + 9) for x, y in marks.values()]
    out = []
    for model, (x, y) in marks.items():
        wide = 6.9 * len(model)
        places = [
            (x + 13, y + 4, "start"),
            (x, y - 15, "middle"),
            (x, y + 24, "middle"),
            (x - 13, y + 4, "end"),
            (x, y - 31, "middle"),
            (x, y + 40, "middle"),
        ]
        boxes = []
        for px, py, anchor in places:
            start = px - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
            boxes.append((start, py - 11, start + wide, py + 4))
        best = min(range(len(places)), key=lambda i: (_clashes(boxes[i], taken, frame), i))
        taken.append(boxes[best])
        out.append(text(places[best][0], places[best][1], model, f"name {model}", places[best][2]))
    return out


def _clashes(box: Box, taken: Sequence[Box], frame: Box) -> int:
    outside = box[0] < frame[0] or box[1] < frame[1] or box[2] > frame[2] or box[3] > frame[3]
    hits = sum(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)
    return hits + 10 * outside


def strips(rows: Sequence[tuple[str, Mapping[str, float | None]]]) -> Markup:
    """One line a figure from 0 to 1, each model a mark on it."""
    width, left, right, row_height = 440.0, 142.0, 20.0, 37.0
    span, height = width - left - right, row_height * len(rows) + 30
    out = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * span
        out += [
            tag("line", x1=x, x2=x, y1=6, y2=height - 24, class_="grid"),
            text(x, height - 7, show(tick, 2), "tick", "middle"),
        ]
    for i, (name, values) in enumerate(rows):
        y = 6 + row_height * (i + 0.5)
        out += [
            text(0, y + 4, name, "axis"),
            tag("line", x1=left, x2=left + span, y1=y, y2=y, class_="track"),
        ]
        found = {m: v for m in MODELS if (v := values.get(m)) is not None}
        if not found:
            out.append(text(left + 8, y - 5, "not computed", "tick"))
        if "retrained" in found and "unlearned" in found:
            ends = [left + found[m] * span for m in ("retrained", "unlearned")]
            out.append(tag("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_="gap"))
        out += [
            mark(m, left + found[m] * span, y) for m in ("original", "retrained", "unlearned") if m in found
        ]
    return picture(out, width, height, "strips", "Every figure of every model on a line from 0 to 1")


def curve(steps: Sequence[float], values: Sequence[float]) -> Markup:
    """A line through (step, value), stretched to whatever box it is put in (200 x 60 units)."""
    low, high, first, last = min(values), max(values), min(steps), max(steps)
    pad = (high - low) * 0.08 or 1.0
    low, high = low - pad, high + pad
    xs = [200 * (s - first) / (last - first) if last > first else 100.0 for s in steps]
    ys = [60 * (high - v) / (high - low) for v in values]
    if len(xs) == 1:
        xs, ys = [80.0, 120.0], ys * 2
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    area = tag("polygon", points=f"{xs[0]:.1f},60 {line} {xs[-1]:.1f},60", class_="area")
    return tag(
        "svg",
        area + tag("polyline", points=line, class_="line"),
        viewBox="0 0 200 60",
        preserveAspectRatio="none",
        class_="curve",
        aria_hidden="true",
    )


def lines(
    courses: Mapping[str, Sequence[Point]], x_range: tuple[float, float], y_range: tuple[float, float]
) -> Markup:
    """One line a model through its points, with ticks at the ends and the middle of both axes."""
    width, height, left, top, right, bottom = 320.0, 190.0, 38.0, 10.0, 12.0, 26.0
    w, h = width - left - right, height - top - bottom
    (x0, x1), (y0, y1) = x_range, y_range

    def at(p: Point) -> Point:
        return left + (p[0] - x0) / (x1 - x0) * w, top + h - (p[1] - y0) / (y1 - y0) * h

    out = [tag("rect", x=left, y=top, width=w, height=h, rx=4, class_="ground")]
    for part in (0.0, 0.5, 1.0):
        x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
        (px, _), (_, py) = at((x, y0)), at((x0, y))
        out += [
            tag("line", x1=left, x2=left + w, y1=py, y2=py, class_="grid"),
            text(left - 6, py + 4, show(y, 2), "tick", "end"),
            text(px, height - 8, f"{x:g}" if x1 > 1 else show(x, 2), "tick", "middle"),
        ]
    for model in MODELS:
        points = [at(p) for p in courses.get(model) or []]
        if points:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            out.append(tag("polyline", points=line, class_=f"course {model}", fill="none"))
    return picture(out, width, height, "strips", "Lines of all models")
