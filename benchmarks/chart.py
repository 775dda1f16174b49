"""Draws the chart of the report: one group of bars a workload, each scaled to the fastest, as an SVG written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from benchmarks.rounds import Series
from benchmarks.workloads import WORKLOADS

_COLOURS = {
    "mms": "#2563eb",
    "mosec": "#d97706",
    "multi-model-server": "#6b7280",
    "torchserve": "#b91c1c",
    "loop": "#a3a3a3",
}
_WIDTH, _LEFT, _BAR, _GAP, _TOP = 860, 290, 16, 16, 46
_LONGEST = _WIDTH - _LEFT - 150


def draw(workloads: Mapping[str, Sequence[Series]]) -> str:
    """The SVG's text; bars carry requests a second (medians)."""
    titles = {one.name: one.title for one in WORKLOADS}
    y = _TOP
    shapes = []
    for name, series in workloads.items():
        fastest = max(one.median_rate for one in series)
        middle = y + len(series) * _BAR / 2 + 4
        shapes.append(f'<text x="{_LEFT - 12}" y="{middle:.0f}" text-anchor="end">{escape(titles[name])}</text>')
        for one in series:
            length = max(_LONGEST * one.median_rate / fastest, 1)
            colour = _COLOURS.get(one.contender, "#888888")
            shapes.append(f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR - 3}" fill="{colour}"/>')
            shapes.append(f'<text x="{_LEFT + length + 6:.1f}" y="{y + 11}">{one.median_rate:,.0f}/s</text>')
            y += _BAR
        y += _GAP
    return "\n".join([_head(y), *_legend(workloads), *shapes, "</svg>", ""])


def _head(height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img" aria-label="Requests a second by workload and server">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    )


def _legend(workloads: Mapping[str, Sequence[Series]]) -> list[str]:
    names = list(dict.fromkeys(one.contender for series in workloads.values() for one in series))
    shapes = []
    x = _LEFT
    for name in names:
        label = "the model in a plain loop" if name == "loop" else name
        shapes.append(f'<rect x="{x}" y="14" width="12" height="12" fill="{_COLOURS.get(name, "#888888")}"/>')
        shapes.append(f'<text x="{x + 18}" y="24">{escape(label)}</text>')
        x += 40 + 7 * len(label)
    return shapes
