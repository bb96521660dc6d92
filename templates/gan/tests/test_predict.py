"""What predict.py runs on: latents drawn from a seed."""

import argparse
from pathlib import Path

import pytest
import torch
from conftest import run

import data
from engine.exits import UserError
from engine.images import read_image

OPTIONS = argparse.Namespace(latent_size=5, kinds=0)


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_input_arguments(parser)
    parser.add_argument("--export")
    return parser.parse_args(flags)


def latents(*flags: str) -> list[torch.Tensor]:
    return [each for _, each in data.read_inputs(parse(*flags), OPTIONS)]


def test_samples_follow_from_seed_and_number() -> None:
    few, many = latents("--samples=3"), latents("--samples=5")
    assert [each.shape for each in few] == [(1, 5)] * 3
    assert all(map(torch.equal, few, many))
    assert not torch.equal(few[0], few[1])
    assert not torch.equal(few[0], latents("--samples=1", "--seed=1")[0])
    assert all(-1 <= each.min() <= each.max() <= 1 for each in many)


def test_strips_lead_from_one_latent_to_another() -> None:
    (strip,) = latents("--samples=1", "--interpolate=5")
    assert strip.shape == (5, 5)
    torch.testing.assert_close(strip[2], (strip[0] + strip[4]) / 2)
    torch.testing.assert_close(strip[0], latents("--samples=1")[0][0])
    assert not torch.equal(strip[0], strip[4])


def test_strips_are_of_one_kind() -> None:
    options = argparse.Namespace(latent_size=5, kinds=3)
    ((_, strip),) = data.read_inputs(parse("--samples=1", "--interpolate=4"), options)
    assert torch.equal(strip[:, 0], strip[:1, 0].expand(4))
    assert all((strip[0, 1:] != strip[3, 1:]).tolist())


def test_an_export_alone_draws_nothing() -> None:
    assert len(latents()) == 16
    assert latents("--export=x.pt2") == []
    assert len(latents("--export=x.pt2", "--samples=2")) == 2


@pytest.mark.parametrize("flag", ["--samples=0", "--interpolate=1", "--seed=-1"])
def test_number_out_of_range(flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag.replace('=', ' ')}: give [012] or more"):
        data.check_inputs(parse(flag))


def test_predict_draws_pictures(trained: Path, tmp_path: Path) -> None:
    flags = f"--path_to_checkpoint={trained}", "--device=cpu", "--batch_size=2"
    process = run("predict.py", *flags, "--samples=3", f"--output_dir={tmp_path}")
    assert process.returncode == 0, process.stderr
    path = tmp_path / "sample_0002_image.png"
    assert process.stdout.splitlines()[2] == f"sample_0002: {path}"
    assert read_image(path, 3).size == (32, 32)
    run("predict.py", *flags, "--samples=1", "--interpolate=6", f"--output_dir={tmp_path}")
    assert read_image(tmp_path / "strip_0000_image.png", 3).size == (6 * 32, 32)
