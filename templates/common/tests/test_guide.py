"""The project follows the style guide: see tests/guide."""

from guide import check

from engine.parser import PROJECT


def test_project_follows_the_guide() -> None:
    assert [str(finding) for finding in check(PROJECT)] == []
