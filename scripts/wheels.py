"""What Python packages a machine lacks for this project, and the commands that bring them there as wheels."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\s*\[([^\]]*)\])?")
"""Name and extras."""
DEPENDENCIES = re.compile(r"^dependencies = \[$(.*?)^\]$", re.DOTALL | re.MULTILINE)
WITHOUT_SAYING = frozenset({"torch", "triton", "pip", "setuptools"})
"""Never fetched: torch belongs to the machine's driver."""
FROM_SOURCE = frozenset({"fast-bss-eval"})
"""Published as source alone; of pure Python, so that a wheel built anywhere will do."""


def normal(name: str) -> str:
    """A distribution's name as names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(root: Path) -> list[str]:
    """What `pyproject.toml` requires, extras apart."""
    found = DEPENDENCIES.search((root / "pyproject.toml").read_text(encoding="utf-8"))  # tomllib came with Python 3.11
    assert found is not None
    return re.findall(r'"([^"]+)"', found[1])


def _parts(requirement: str) -> tuple[str, list[str]]:
    """Name and extras."""
    match = REQUIREMENT.match(requirement)
    assert match is not None, requirement
    return match[1], [extra.strip() for extra in (match[2] or "").split(",") if extra]


def installed(name: str) -> bool:
    """Whether this Python has a distribution."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def lacking(root: Path, have: set[str] | None = None) -> list[str]:
    """Required packages, and what these require where their metadata is here to tell, that a machine lacks.

    Args:
        root: the checkout.
        have: normal names of the packages it has; None stands for this Python.
    """
    found: dict[str, str] = {}
    queue = requirements(root)
    while queue:
        name, extras = _parts(queue.pop(0))
        key = normal(name)
        there = installed(name) if have is None else key in have
        if key in WITHOUT_SAYING or (there and not extras):
            continue
        if not there:
            known, found[key] = key in found, name
            if known and not extras:
                continue
        if installed(name):
            queue += [line for line in importlib.metadata.requires(name) or [] if _concerns(line, extras)]
    return sorted(found.values(), key=normal)


def _concerns(requirement: str, extras: list[str]) -> bool:
    """Whether a requirement holds on Linux with a Python of today, for the extras that are asked for."""
    _, _, marker = requirement.partition(";")
    if extra := re.search(r"extra == [\"']([^\"']+)", marker):
        return extra[1] in extras
    return not re.search(r"python_version\s*<|win32|Windows|darwin|Darwin|emscripten", marker)


def listed(path: Path) -> set[str]:
    """Normal names in the output of `pip list` or `pip freeze`, one a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {normal(_parts(line)[0]) for line in lines if line[:1].isalnum()}


def pip_lines(root: Path, have: Path | None) -> str:
    """The commands: one that downloads, where there is a network, and one that installs, where there is none."""
    names = lacking(root, None if have is None else listed(have))
    if not names:
        return "nothing is missing"
    pinned = (root / "constraints.txt").read_text(encoding="utf-8").split()
    versions = {normal(_parts(line)[0]): line.partition("==")[2] for line in pinned if "==" in line}
    wanted = {name: f"{name}=={versions[normal(name)]}" if normal(name) in versions else name for name in names}
    sources = [wish for name, wish in wanted.items() if normal(name) in FROM_SOURCE]
    binaries = [wish for name, wish in wanted.items() if normal(name) not in FROM_SOURCE]
    version = f"{sys.version_info[0]}.{sys.version_info[1]}" if have is None else "3.12"
    lines = [
        f"pip download --no-deps --only-binary :all: --python-version {version} --platform manylinux_2_28_x86_64 "
        f"--platform manylinux2014_x86_64 -d wheels {' '.join(binaries)}",
        *([f"pip wheel --no-deps -w wheels {' '.join(sources)}"] if sources else []),
        f"pip install --no-index --no-deps --find-links wheels {' '.join(names)}",
    ]
    if have is None and not all(map(installed, names)):
        lines.append("# What these require is not known here: run this with --have where they are installed.")
    return "\n".join(lines)
