"""Every command that README and docs show is one that the command line takes: names, settings and choices."""

import re
import shlex
from pathlib import Path

import pytest

from deepavfusion.arguments import UsageError
from deepavfusion.cli import VERBS
from deepavfusion.verbs.verb import parsed

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES]
COMMANDS = list(dict.fromkeys(re.findall(r"^ +deepavfusion (.+)", "\n".join(TEXTS), re.MULTILINE)))


def candidates(words: list[str]) -> list[tuple[str, list[str]]]:
    """Verbs that the words may mean, each with its options: `evaluate RUN` is of the run's task."""
    for length in (2, 1):
        if (name := " ".join(words[:length])) in VERBS:
            return [(name, words[length:])]
    return [(name, words[1:]) for name in VERBS if name.startswith(f"{words[0]} ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_docs_is_taken(command: str) -> None:
    words = shlex.split(command.split("&&")[0], comments=True)
    shortened = "..." in words  # the other settings are left out
    words = [word for word in words if word != "..."]
    problems = {name: problem(name, options, shortened) for name, options in candidates(words)}
    assert None in problems.values(), problems or f"no such command: {command}"


def problem(name: str, options: list[str], shortened: bool) -> str | None:
    """What is wrong with the options of a verb; of shortened ones some may be missing."""
    try:
        parsed(VERBS[name], options)
    except UsageError as error:
        return None if shortened and str(error).startswith("missing ") else str(error)
    return None


def test_the_scripts_and_experiments_of_the_docs_exist() -> None:
    text = "\n".join(TEXTS)
    scripts = set(re.findall(r"python (scripts/\w+\.py)", text))
    assert len(scripts) > 5
    assert not [script for script in scripts if not (ROOT / script).is_file()]
    parts = set(re.findall(r"-m experiments --parts (\w+)", text))
    assert len(parts) > 5
    assert not [part for part in parts if f'"{part}"' not in (ROOT / "experiments" / "__main__.py").read_text()]


def test_the_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
            target = page.parent / path if path else page
            assert target.is_file(), f"{page.name}: {path}"
            if heading:
                headings = re.findall(r"^#+ (.+)", target.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings]
                assert heading in anchors, f"{page.name}: {path}#{heading}"
