"""The report: what a page holds of a run, of two runs, and of names that hold markup."""

import base64
import html
import io
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from conftest import Parse, command, run
from PIL import Image

from engine.checkpoint import read_checkpoint, write_checkpoint
from engine.exits import UserError
from engine.history import LAST_PICTURES, Point, read_history
from engine.record import Record
from engine.report_page import page
from engine.report_plots import MOST_POINTS, Curve, plot

from resnetclassifier import ResNetClassifier

BEST = ResNetClassifier.best_metric


class Page(HTMLParser):
    """A page as a browser sees it: its elements, and its text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []  # of the tables: a cell's text behind each bar
        self.text = ""
        self._within = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag
        if tag == "tr":
            self.rows.append(dict(attrs).get("class") or "")
        elif tag in ("th", "td"):
            self.rows[-1] += "|"

    def handle_data(self, data: str) -> None:
        if self._within in ("th", "td"):
            self.rows[-1] += data.strip()
        if self._within not in ("script", "style"):
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(output: Path, *folders: Path) -> Page:
    runs = [read_history(folder) for folder in folders]
    output.write_text(page(runs, ResNetClassifier), encoding="utf-8")
    return Page(output)


@pytest.fixture
def record_run(parse: Parse, tmp_path: Path) -> Path:
    """A run's folder by the record alone, without a checkpoint, as in its first epoch."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    with Record(folder, parse(), 0, 0) as record:
        record.scalars("train", 1, 0, {"loss": 2.0, "lr": 0.1}, {"efficiency": 0.5})
    return folder


def test_report_tells_what_a_run_did(trained: Path, tmp_path: Path) -> None:
    folder = trained.parent.parent
    done = run("report.py", "--run_dir", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder / 'report.html'} written: open it in a browser\n"
    found = Page(folder / "report.html")
    (folder / "report.html").unlink()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = lines[-1]["n_iter"]
    assert f"A run of {ResNetClassifier.__name__}" in found.text
    assert f"finishedstep {steps}2 of 2 epochs" in found.text
    checkpoint = torch.load(trained, weights_only=True)
    where = f"step {checkpoint['n_iter']}, epoch {checkpoint['epoch']}"
    assert f"best {BEST}{checkpoint['best']:.4f}{where}" in found.text
    assert f"training data{checkpoint['fingerprint'][:8]}" in found.text
    terms = {name for line in lines for name in line} - {"n_iter", "epoch", "split", "lr"}
    assert all(name in found.text for name in [*terms, "learning rate", "efficiency", "images/s"])
    assert found.source.count("Plotly.newPlot(") == len(terms) + 3
    assert "|batch_size|32" in found.rows
    assert f"|torch|{torch.__version__}" in found.rows
    assert "|device|cpu" in found.rows


def test_page_loads_nothing(trained: Path, tmp_path: Path) -> None:
    found = write(tmp_path / "page.html", trained.parent.parent)
    policy = next(each for each in found.named("meta") if "http-equiv" in each)
    assert str(policy["content"]).startswith("default-src 'none'")
    assert not found.named("link")
    assert all("src" not in each for each in found.named("script"))
    assert all(str(each["src"]).startswith("data:image/png;base64,") for each in found.named("img"))


def test_two_runs_stand_side_by_side(trained: Path, parse: Parse, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Record(other, parse("--lr=0.25"), 0, 0) as record:
        record.scalars("test", 8, 0, {BEST: 0.125})
    first = trained.parent.parent
    found = write(tmp_path / "page.html", first, other)
    assert f"{first} and {other}" in found.text
    differing = [row for row in found.rows if row.startswith("differs|")]
    assert f"differs|lr|{parse().lr}|0.25" in differing
    assert "|img_size|32|32" in found.rows
    plots = found.source.replace("\\u002f", "/").split("Plotly.newPlot(")[1:]
    (both,) = [each for each in plots if "[0.125]" in each]  # overlaid in one plot
    assert f"{first}, test" in both
    assert f"{other}, test" in both


def test_names_hold_no_markup(parse: Parse, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    name = evil.replace("/", "-")
    folder = tmp_path / name
    folder.mkdir()
    with Record(folder, parse(f"--path_to_data={evil}"), 0, 0) as record:
        record.scalars("train", 1, 0, {evil: 1.0}, {evil: 2.0})
        record.pictures(evil, 1, {evil: torch.zeros(3, 2, 2)})
    start = {"n_iter": evil, "time": evil, evil: evil, "diff": evil, "untracked": [evil]}
    (folder / "environment.jsonl").write_text(json.dumps(start), encoding="utf-8")
    plain = tmp_path / "plain"
    plain.mkdir()
    with Record(plain, parse(), 0, 0) as record:
        record.scalars("train", 1, 0, {"loss": 1.0}, {"images/s": 2.0})
        record.pictures("test", 1, {"images": torch.zeros(3, 2, 2)})
    found, other = write(tmp_path / "page.html", folder), write(tmp_path / "b.html", plain)
    assert len(found.named("script")) == len(other.named("script"))
    assert len(found.named("img")) == len(other.named("img")) == 1
    assert all("onerror" not in attributes for _, attributes in found.elements)
    assert name in found.text
    assert f"|path_to_data|{evil}" in found.rows
    assert f"|{evil}|{evil}" in found.rows
    assert "<script>alert" not in found.source  # nor in what the plots are given
    both = write(tmp_path / "both.html", folder, plain)
    assert f'{html.escape(name)}, train"' in both.source  # plotly knows some tags


def test_later_start_overrides_what_it_does_anew(parse: Parse, tmp_path: Path) -> None:
    picture = torch.zeros(3, 2, 2)
    with Record(tmp_path, parse(), 0, 0) as record:
        for step in range(1, 7):
            record.scalars("train", step, 0, {"loss": 1.0}, {"efficiency": 0.25})
            record.pictures("test", step, {"images": picture})
            if step == 3:
                position = record.position
    with Record(tmp_path, parse(), 3, position) as record:
        for step in (4, 5):
            record.scalars("train", step, 0, {"loss": 0.5}, {"efficiency": 0.75})
        record.pictures("test", 5, {"images": picture + 1})
    history = read_history(tmp_path)
    efficiency = [0.25] * 3 + [0.75] * 2
    assert history.speeds["efficiency"] == list(zip(range(1, 6), efficiency, strict=True))
    assert history.curve("train", "loss")[2:] == [(3, 1.0), (4, 0.5), (5, 0.5)]
    assert [each.n_iter for each in history.pictures["test/images"]] == [2, 3, 5]
    last = history.pictures["test/images"][-1]
    assert (last.n_iter, Image.open(io.BytesIO(last.content)).getextrema()[0]) == (5, (255, 255))
    assert [start["n_iter"] for start in history.starts] == [0, 3]


def test_last_pictures_of_each_name_are_in_the_page(parse: Parse, tmp_path: Path) -> None:
    with Record(tmp_path, parse(), 0, 0) as record:
        for step in range(1, LAST_PICTURES + 3):
            record.pictures("test", step, {"a": torch.full((3, 2, 4), step / 255)})
            record.pictures("test", step, {"b": torch.zeros(3, 2, 2)})
    found = write(tmp_path / "page.html", tmp_path)
    images = found.named("img")
    assert len(images) == 2 * LAST_PICTURES
    newest = base64.b64decode(str(images[0]["src"]).partition(",")[2])
    assert Image.open(io.BytesIO(newest)).getpixel((0, 0)) == (LAST_PICTURES + 2,) * 3
    assert images[0]["alt"] == f"test/a, step {LAST_PICTURES + 2}"


def test_run_that_has_only_begun_has_a_report(record_run: Path, tmp_path: Path) -> None:
    found = write(tmp_path / "page.html", record_run)
    assert "not finishedstep 10 of 2 epochs" in found.text
    assert f"best {BEST}none yet" in found.text
    with (record_run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"n_iter": 2, "sp')  # a line that is being written
    (record_run / "checkpoints").mkdir()
    (record_run / "checkpoints" / "last.pt").write_bytes(b"torn")
    assert write(tmp_path / "again.html", record_run).text == found.text
    (record_run / "metrics.jsonl").write_text("", encoding="utf-8")
    for name in ("config.txt", "environment.jsonl"):
        (record_run / name).unlink()
    assert "not finishedstep 0" in write(tmp_path / "empty.html", record_run).text


def test_what_cannot_be_read_is_left_out(record_run: Path, tmp_path: Path) -> None:
    text = write(tmp_path / "page.html", record_run).text
    with (record_run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"n_iter": 2, "split": "test"}\n')  # of no epoch
    (record_run / "events.out.tfevents.9").mkdir()
    (record_run / "checkpoints").mkdir()
    write_checkpoint({"model": {}}, record_run / "checkpoints" / "last.pt")  # of older days
    assert write(tmp_path / "again.html", record_run).text == text
    (record_run / "environment.jsonl").write_text("{}\n", encoding="utf-8")
    assert "in 1 start" in write(tmp_path / "last.html", record_run).text


def test_state_is_that_of_the_newest_checkpoint_and_the_last_flags(
    trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained.parent.parent, tmp_path / "run")
    finished = write(tmp_path / "page.html", folder).text
    state = read_checkpoint(trained.with_name("last.pt")) | {"n_iter": 999}
    write_checkpoint(state, folder / "checkpoints" / "step_00000999.pt")
    assert "finishedstep 9992 of 2 epochs" in write(tmp_path / "newer.html", folder).text
    assert "not finished" not in finished
    config = folder / "config.txt"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 4"))
    assert "not finishedstep 9992 of 4 epochs" in write(tmp_path / "longer.html", folder).text


def test_speeds_of_slow_models_have_digits(record_run: Path, parse: Parse, tmp_path: Path) -> None:
    with Record(record_run, parse(), 1, 0) as record:
        record.scalars("train", 2, 0, {"loss": 1.0}, {"images/s": 0.25})
    assert "images/s0.25median" in write(tmp_path / "page.html", record_run).text


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    points = [Point(step, 1.0) for step in range(5 * MOST_POINTS + 1)]
    text = plot([Curve("loss", "red", True, points)], "p")
    assert len(text) < 20 * MOST_POINTS
    assert str(points[-1].n_iter) in text


@pytest.mark.slow
def test_wrong_use_is_one_line_and_status_2(trained: Path, tmp_path: Path) -> None:
    folder, output = trained.parent.parent, tmp_path / "gone" / "page.html"
    lines = {
        (): "report.py: the following arguments are required: --run_dir (see --help)",
        ("gone",): "--run_dir gone: there is no such folder",
        (folder,) * 3: "--run_dir takes one folder, or two to compare, not 3",
        (folder, "--output", output): f"--output {output}: No such file or directory",
    }
    for flags, line in lines.items():
        done = run("report.py", *(["--run_dir", *flags] if flags else []))
        assert (done.returncode, done.stderr) == (2, f"{line}\n")
    with pytest.raises(UserError, match=r"--run_dir .* holds no metrics.jsonl: give the folder"):
        read_history(tmp_path)


@pytest.mark.slow
def test_missing_plotly_is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "plotly.py").write_text("raise ImportError('No module named plotly')\n")
    done = subprocess.run(
        command("report.py", "--run_dir", trained.parent.parent),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "pip install -e '.[report]' (No module named plotly)\n"
