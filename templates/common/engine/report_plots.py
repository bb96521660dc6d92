"""Curves as plots that a browser draws and that can be zoomed into, by plotly."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from engine.history import Point

MOST_POINTS = 4000  # of a curve, that are drawn: a screen has no more columns
FEW_POINTS = 40  # of a curve, up to which each has a mark
# Of each run, for training and test: both are seen on a light and on a dark page.
COLORS = (("#8db4ee", "#2f6fd6"), ("#f0bb85", "#d9731a"))
GREY, GRID = "#808790", "rgba(128, 135, 144, 0.22)"
BUTTONS = [["toImage", "pan2d", "resetScale2d"]]
HEIGHT = 262  # pixels


class Curve(NamedTuple):
    """A curve of a plot.

    Attributes:
        name: shown beside the pointer.
        color: as CSS writes it.
        is_main: drawn with a thicker line.
        points: by step.
    """

    name: str
    color: str
    is_main: bool
    points: Sequence[Point]


def plot(curves: Sequence[Curve], name: str, y_format: str = "", from_zero: bool = False) -> str:
    """Returns a plot as a piece of HTML, for a page that holds `library()`.

    Args:
        curves: those without a point are left out.
        name: of the element, unlike any other on the page.
        y_format: of the numbers at the axis, as d3 has it.
        from_zero: the axis begins at zero.
    """
    figure = go.Figure([_trace(curve) for curve in curves if curve.points])
    text = {"size": 11, "color": GREY}
    axis = {"gridcolor": GRID, "zeroline": False, "tickfont": text, "exponentformat": "e"}
    figure.update_layout(
        template="none",
        height=HEIGHT,
        margin={"l": 54, "r": 10, "t": 34, "b": 30},  # the same for all, so that they line up
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": "system-ui, sans-serif"},
        hovermode="x unified",
        hoverlabel={"bgcolor": "#23272e", "font": {"color": "#f2f3f5", "size": 12}},
        showlegend=False,
        modebar={"bgcolor": "rgba(0, 0, 0, 0)", "color": GREY, "activecolor": GREY},
        xaxis=axis | {"rangemode": "tozero", "hoverformat": ",d", "tickformat": ",d"},
        yaxis=axis
        | {"nticks": 6, "tickformat": y_format, "rangemode": "tozero" if from_zero else "normal"},
    )
    piece: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False, "responsive": True, "modeBarButtons": BUTTONS},
    )
    return piece


def library() -> str:
    """Returns the script that draws the plots, of some 5 MB."""
    script: str = get_plotlyjs()
    return script


def _trace(curve: Curve) -> go.Scatter:
    points = _thinned(curve.points)
    return go.Scatter(
        x=[point.n_iter for point in points],
        y=[point.value for point in points],
        name=html.escape(curve.name),  # plotly understands some tags
        mode="lines+markers" if len(points) <= FEW_POINTS else "lines",
        line={"color": curve.color, "width": 2 if curve.is_main else 1.5},
        marker={"size": 5 if curve.is_main else 4},
        hovertemplate="%{y:.5g}",
    )


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Returns every n-th point and the last, where there are too many."""
    every = -(-len(points) // MOST_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]
