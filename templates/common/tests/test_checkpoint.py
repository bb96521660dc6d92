"""Checkpoints: whole or not there, read only when every byte is right, bounded in number."""

import copy
import os
import pickle
import random
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import Checkpoints, read_checkpoint, require_checkpoint, write_checkpoint
from engine.exits import FailedError, UserError
from engine.weights import load_fitting, load_model


def state(n_iter: int = 1) -> dict[str, Any]:
    return {"model": {"weight": torch.arange(50.0)}, "n_iter": n_iter}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_checkpoint(state(), tmp_path / "a.pt")
    read = read_checkpoint(tmp_path / "a.pt")
    assert torch.equal(read["model"]["weight"], torch.arange(50.0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_torch_reads_it_too(tmp_path: Path) -> None:
    write_checkpoint(state(7), tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True)["n_iter"] == 7


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(state(), path)
    content, draw = path.read_bytes(), random.Random(0)
    for place in [0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(100))]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.pt is (torn|damaged)"):
            read_checkpoint(path)


@pytest.mark.parametrize("length", [0, 1, 70, 500, -1])
def test_torn_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(state(), path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"a\.pt is torn, or no checkpoint of this project"):
        read_checkpoint(path)


def seal(path: Path) -> None:
    """Gives any zip archive the digest that a checkpoint has, as an attacker would."""
    from engine import checkpoint

    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(checkpoint._SEAL)
        file.write(checkpoint._digest(file, file.tell()))


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("executed"),)


def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Malicious()}, "a.pt")
    seal(tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds more than plain types and tensors: refused"):
        read_checkpoint("a.pt")
    assert not Path("executed").exists()
    pickle.loads(pickle.dumps(Malicious()))
    assert Path("executed").exists()  # as anything but weights_only would have done


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    write_checkpoint(state(), tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as archive,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name))
    seal(tmp_path / "b.pt")
    with pytest.raises(UserError, match="compressed entries"):
        read_checkpoint(tmp_path / "b.pt")


def test_more_bytes_than_the_file_has_are_refused(tmp_path: Path) -> None:
    """Entries that share their bytes: a small file that would fill the memory."""
    write_checkpoint(state(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.comment = b""
        first = archive.infolist()[0]
        for number in range(100):
            twin = copy.copy(first)
            twin.filename = f"twin{number}"
            twin.file_size = twin.compress_size = 1000
            archive.filelist.append(twin)
        archive._didModify = True  # type: ignore[attr-defined]  # or it would not be written
    seal(tmp_path / "a.pt")
    with pytest.raises(UserError, match="claims to hold more bytes than it has"):
        read_checkpoint(tmp_path / "a.pt")


def test_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(state(1), tmp_path / "a.pt")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(state(2), tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt")["n_iter"] == 1


def test_newest_are_kept_and_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for n_iter in range(1, 6):
        checkpoints.save(state(n_iter) | {"is_best": n_iter == 2})
    checkpoints.wait()
    names = {"step_00000004.pt", "step_00000005.pt", "last.pt", "best.pt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert read_checkpoint(tmp_path / "best.pt")["n_iter"] == 2
    assert read_checkpoint(tmp_path / "last.pt")["n_iter"] == 5


def test_saved_is_what_the_state_was_at_the_save(tmp_path: Path) -> None:
    checkpoints, weight = Checkpoints(tmp_path, keep=1), torch.zeros(3)
    started = threading.Event()
    window = [1.0]

    def first() -> None:
        started.wait()

    checkpoints.save({"model": {"weight": weight}, "window": window, "n_iter": 1}, first=first)
    weight += 1  # the training goes on before a byte is written
    window.append(2.0)
    started.set()
    checkpoints.wait()
    read = read_checkpoint(tmp_path / "last.pt")
    assert torch.equal(read["model"]["weight"], torch.zeros(3))
    assert read["window"] == [1.0]


def test_failed_save_is_named_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(state(1))
    checkpoints.wait()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        checkpoints.save(state(2))
        with pytest.raises(FailedError, match=r"step_00000002\.pt is not saved: No space left"):
            checkpoints.wait()
    line = f"{tmp_path / 'step_00000002.pt'} is not saved: No space left on device"
    assert capsys.readouterr().err == f"{line}; training goes on\n"
    newest = checkpoints.newest()
    assert newest is not None
    assert newest["n_iter"] == 1
    assert not list(tmp_path.glob("*.tmp"))  # what was written of it took room
    checkpoints.save(state(3))
    checkpoints.wait()
    assert read_checkpoint(tmp_path / "last.pt")["n_iter"] == 3


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    (tmp_path / "step_00000001.tmp").write_bytes(b"half")
    assert Checkpoints(tmp_path, keep=2).newest() is None
    assert not list(tmp_path.iterdir())


def test_newest_good_one_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for n_iter in (1, 2, 3):
        checkpoints.save(state(n_iter))
    checkpoints.wait()
    for n_iter in (2, 3):
        (tmp_path / f"step_{n_iter:08d}.pt").write_bytes(b"")
    found = checkpoints.newest()
    assert found is not None
    assert found["n_iter"] == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" is torn")[0] for line in lines] == [
        str(tmp_path / "step_00000003.pt"),
        str(tmp_path / "step_00000002.pt"),
    ]


def test_missing_file_is_named_with_its_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--path_to_checkpoint .*gone\.pt: No such file"):
        require_checkpoint(str(tmp_path / "gone.pt"))


def test_another_models_weights_are_refused() -> None:
    model = torch.nn.Linear(2, 3)
    with pytest.raises(UserError, match="only the model has bias"):
        load_model(model, {"weight": torch.zeros(3, 2)})
    with pytest.raises(UserError, match=r"its weight has shape \(4, 2\), the model's \(3, 2\)"):
        load_model(model, {"weight": torch.zeros(4, 2), "bias": torch.zeros(3)})


def test_what_fits_is_taken_for_fine_tuning() -> None:
    model = torch.nn.Linear(2, 3)
    left = load_fitting(model, {"weight": torch.ones(3, 2), "bias": torch.ones(5)})
    assert left == ["bias"]
    assert torch.equal(model.weight, torch.ones(3, 2))
