"""Tests of prepare_data.py: the script; what it writes is tested beside engine/known_data.py."""

import subprocess
import sys
from pathlib import Path

import prepare_data


def test_script_ends_with_the_right_status(tmp_path: Path) -> None:
    command = [sys.executable, prepare_data.__file__, "--dataset=fake", "--path_to_data=data"]
    first, second = (
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        for _ in range(2)
    )
    assert (first.returncode, first.stderr) == (0, "")
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "already there" in second.stderr


def test_help_does_not_import_what_is_slow() -> None:
    names = "torch", "torchvision", "sklearn", "numpy", "PIL"
    code = f"import sys, prepare_data; print([n for n in {names} if n in sys.modules])"
    folder = Path(prepare_data.__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
