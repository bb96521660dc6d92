"""The style guide's rules, checked in the sources: nothing is imported, nothing is run.

`python -m tests.guide` prints a line for each place where the project departs from the guide. The
rules and their numbers are those of IgorSusmelj's PyTorch style guide, as docs/guide.md of the
template lists them. A line that has a reason to depart says so:

    mean = np.mean(x)  # guide: allow M7 because the input is no tensor
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from . import files, modules, training
from .project import Finding, Project, Rule

RULES = {**files.RULES, **modules.RULES, **training.RULES}


def check(root: Path, rules: Iterable[str] = RULES) -> list[Finding]:
    """Returns what the project in a folder does against the rules, sorted by place."""
    project = Project(root)
    found = [*project.unreadable, *project.unreasoned()]
    for number in rules:
        found += _findings(project, number, RULES[number])
    return sorted(set(found))


def _findings(project: Project, number: str, rule: Rule) -> Iterator[Finding]:
    for path, line, what in rule.find(project):
        if not project.allows(path, line, number):
            yield Finding(path, line, number, f"{what}: {rule.remedy}")
