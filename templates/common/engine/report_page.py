"""The report of a run, or of two side by side, as one page of HTML that needs nothing else."""

import base64
import html
import statistics
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from engine.history import History
from engine.report_plots import COLORS, Curve, library, plot
from engine.report_style import STYLE

SPLITS = ("train", "test")
OF_ONE_START = ("n_iter", "time", "command")  # never the same in two
DIGEST = 8  # characters shown of a fingerprint
# The page may load nothing from anywhere: what it needs is in it.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def page(runs: Sequence[History], model: Any) -> str:
    """Returns the whole page.

    Args:
        runs: one, or two to compare.
        model: the model's class, which says what its best metric is.
    """
    title = " and ".join(run.name for run in runs)
    kind = f"{'A run' if len(runs) == 1 else 'Two runs'} of {_text(model.__name__)}"
    sections = [
        *_named(runs, (_summary(run, model.best_metric) for run in runs)),
        _curves(runs, model.best_metric),
        _speeds(runs),
        _pictures(runs),
        _options(runs),
        _environment(runs),
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)} - {_text(model.__name__)}</title>",
            f"<style>{STYLE}</style>\n<script>{library()}</script>\n</head>\n<body>",
            f"<header>\n<p>{kind}</p>\n<h1>{_text(title)}</h1>\n</header>",
            *sections,
            "</body>\n</html>\n",
        ]
    )


def _text(value: Any) -> str:
    """Returns a value as text that holds no markup, whatever stands in it."""
    return html.escape(str(value))


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>" if content else ""


def _swatch(color: str) -> str:
    return f'<i class="swatch" style="background: {color}"></i>'


def _summary(run: History, best_metric: str) -> str:
    """Returns what is to be known of a run at a glance, as tiles."""
    tiles = [_state_tile(run), _best_tile(run, best_metric)]
    for name, points in run.speeds.items():
        if points:
            middle = statistics.median(point.value for point in points)
            tiles.append(_tile(name, _speed(name, middle), "median"))
    count = len(run.starts)
    starts = f"in {count} start{'' if count == 1 else 's'}"
    tiles.append(_tile("time", str(timedelta(seconds=round(run.seconds))), starts))
    if run.checkpoint:
        classes = f"{len(run.checkpoint['classes'])} classes" if run.checkpoint["classes"] else ""
        tiles.append(_tile("training data", run.checkpoint["fingerprint"][:DIGEST], classes))
    return f'<div class="tiles">\n{"".join(tiles)}</div>'


def _speed(name: str, value: float) -> str:
    if name == "efficiency":
        return f"{value:.0%}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _tile(label: str, value: str, note: str) -> str:
    return (
        f'<div class="tile"><p class="note">{_text(label)}</p><p class="value">{_text(value)}</p>'
        f'<p class="note">{_text(note)}</p></div>\n'
    )


def _state_tile(run: History) -> str:
    done = run.checkpoint.get("epoch", 0)
    epochs = f"{done} of {run.options.get('epochs', '?')} epochs"
    state = "finished" if run.is_finished else "not finished"
    return _tile(state, f"step {run.last_step:,}", epochs)


def _best_tile(run: History, metric: str) -> str:
    best = run.best(metric)
    if best is None:
        return _tile(f"best {metric}", "none yet", "no test is saved")
    where = f"step {best['n_iter']:,}, epoch {best['epoch'] + 1}"
    return _tile(f"best {metric}", f"{best[metric]:.4f}", where)


def _curves(runs: Sequence[History], best_metric: str) -> str:
    """Returns a plot for each term, training and test of all runs in it, the best metric first."""
    names = dict.fromkeys(name for run in runs for name in run.terms() if name != "lr")
    ordered = sorted(names, key=lambda name: name != best_metric)
    plots = [
        _card(name, plot(_both_splits(runs, name), f"term-{number}"))
        for number, name in enumerate(ordered)
    ]
    return _section("Curves by step", _key(runs) + _plots(plots)) if plots else ""


def _both_splits(runs: Sequence[History], name: str) -> list[Curve]:
    return [
        Curve(_called(runs, run, split), color, split == "test", run.curve(split, name))
        for run, colors in zip(runs, COLORS, strict=False)
        for split, color in zip(SPLITS, colors, strict=True)
    ]


def _called(runs: Sequence[History], run: History, what: str) -> str:
    """Returns what a curve is called: its run is named where there are two."""
    return what if len(runs) == 1 else f"{run.name}, {what}"


def _speeds(runs: Sequence[History]) -> str:
    """Returns plots of the learning rate, of the efficiency and of images/s."""
    plots = []
    if any(run.curve("train", "lr") for run in runs):
        rates = [run.curve("train", "lr") for run in runs]
        plots.append(_card("learning rate", plot(_one_each(runs, "lr", rates), "rate")))
    names = dict.fromkeys(name for run in runs for name in run.speeds)
    for number, name in enumerate(names):
        curves = _one_each(runs, name, [run.speeds.get(name, []) for run in runs])
        y_format = ".0%" if name == "efficiency" else ","
        plots.append(_card(name, plot(curves, f"speed-{number}", y_format, from_zero=True)))
    return _section("Learning rate and speed by step", _plots(plots)) if plots else ""


def _one_each(runs: Sequence[History], name: str, points: Sequence[Any]) -> list[Curve]:
    return [
        Curve(_called(runs, run, name), colors[1], True, each)
        for run, colors, each in zip(runs, COLORS, points, strict=False)
    ]


def _key(runs: Sequence[History]) -> str:
    """Returns which color stands for what."""
    entries = [
        f"<span>{_swatch(color)}{_text(_called(runs, run, split))}</span>"
        for run, colors in zip(runs, COLORS, strict=False)
        for split, color in zip(SPLITS, colors, strict=True)
    ]
    return f'<p class="key">{"".join(entries)}</p>\n'


def _card(title: str, content: str) -> str:
    return f'<div class="plot">\n<h3>{_text(title)}</h3>\n{content}\n</div>'


def _plots(cards: Sequence[str]) -> str:
    return f'<div class="plots">\n{"".join(cards)}\n</div>'


def _named(runs: Sequence[History], contents: Iterable[str]) -> list[str]:
    """Returns what each run has, under its name where there are two."""
    heads = [""]
    if len(runs) > 1:
        colors = [color for _, color in COLORS]
        pairs = zip(runs, colors, strict=True)
        heads = [f"<h3>{_swatch(color)}{_text(run.name)}</h3>\n" for run, color in pairs]
    return [
        f'<div class="run">\n{head}{content}\n</div>'
        for head, content in zip(heads, contents, strict=True)
    ]


def _columns(runs: Sequence[History], contents: Iterable[str]) -> str:
    """Returns what each run has, side by side."""
    return f'<div class="columns">\n{"".join(_named(runs, contents))}\n</div>'


def _pictures(runs: Sequence[History]) -> str:
    """Returns the last pictures of each name."""
    if not any(run.pictures for run in runs):
        return ""
    return _section("Pictures", _columns(runs, (_pictures_of(run) for run in runs)))


def _pictures_of(run: History) -> str:
    parts = []
    for name, pictures in run.pictures.items():
        figures = []
        for picture in reversed(pictures):
            source = f"data:image/png;base64,{base64.b64encode(picture.content).decode()}"
            caption = f"step {picture.n_iter:,}"
            image = f'<img src="{source}" alt="{_text(name)}, {caption}">'
            figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
        grid = f'<div class="pictures">{"".join(figures)}</div>'
        parts.append(f"<h3>{_text(name)}</h3>\n{grid}")
    return "\n".join(parts)


def _options(runs: Sequence[History]) -> str:
    """Returns the flags; those in which two runs differ come first, and are marked."""
    names = sorted({name for run in runs for name in run.options} - {"run_dir"})
    rows = [(name, [run.options.get(name, "") for run in runs]) for name in names]
    rows.sort(key=lambda row: len(set(row[1])), reverse=True)
    return _section("Options", _table(rows, [run.name for run in runs])) if rows else ""


def _table(rows: Sequence[tuple[str, Sequence[Any]]], heads: Sequence[str] = ()) -> str:
    """Returns a table: a name, and a value for each run."""
    if not rows:
        return ""
    lines = []
    if len(heads) > 1:
        cells = "".join(f"<th>{_text(head)}</th>" for head in heads)
        lines.append(f"<thead><tr><th></th>{cells}</tr></thead>\n")
    for name, values in rows:
        differs = ' class="differs"' if len({*map(str, values)}) > 1 else ""
        cells = "".join(f"<td>{_text(value)}</td>" for value in values)
        lines.append(f"<tr{differs}><th>{_text(name)}</th>{cells}</tr>\n")
    return f'<div class="of-{len(values)}">\n<table>\n{"".join(lines)}</table>\n</div>'


def _environment(runs: Sequence[History]) -> str:
    """Returns what the last start of each run rested on, then each of its starts."""
    if not any(run.starts for run in runs):
        return ""
    newest = [run.starts[-1] if run.starts else {} for run in runs]
    names = dict.fromkeys(name for start in newest for name in start if name not in OF_ONE_START)
    rows = [(name, [_fact(start, name) for start in newest]) for name in names]
    table = _table(rows, [run.name for run in runs])
    return _section("Environment", table + _columns(runs, (_starts_of(run) for run in runs)))


def _fact(start: dict[str, Any], name: str) -> str:
    """Returns in words what a start says."""
    value = start.get(name)
    if name == "diff" and value:
        return f"{len(str(value).splitlines())} lines, see below"
    if value is None:
        return "not known"
    if name == "time":
        return str(value).replace("T", " ").replace("Z", " UTC")
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"


def _starts_of(run: History) -> str:
    parts = []
    for number, start in enumerate(run.starts, 1):
        title = f"start {number}: step {_fact(start, 'n_iter')}, {_fact(start, 'time')}"
        rows = [(name, [_fact(start, name)]) for name in start if name not in ("n_iter", "time")]
        diff = f"<pre>{_text(start['diff'])}</pre>" if start.get("diff") else ""
        parts.append(
            f"<details><summary>{_text(title)}</summary>\n{_table(rows)}{diff}\n</details>"
        )
    return "\n".join(parts)
