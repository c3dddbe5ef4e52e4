"""Class names in a fixed order: the lists that ship with the package, and the rule for other data sets.

The class number of a label is its place in this list. The list comes from an annotation file or ships with the package;
it is never made from the folders that happen to exist, because a missing one would change the other numbers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from functools import cache
from importlib.resources import files

SHIPPED = (
    "audioset",
    "audioset_mids",
    "ave",
    "avss",
    "bandstand",
    "kinetics_sounds",
    "music",
    "music21",
    "vgg_instruments",
    "vggsound",
    "vggsound_music",
)
"""Lists that ship: alphabetical, but AudioSet in the order of its class_labels_indices.csv (the mids in the same),
Bandstand in that of its pairs of look and timbre, and AVSBench-semantic in that of its label2idx.json, background
first."""


@cache
def shipped_classes(name: str) -> tuple[str, ...]:
    """The class names of a data set, in order.

    Raises:
        ValueError: no such list ships.
    """
    if name not in SHIPPED:
        raise ValueError(f"no list of classes {name!r} ships with the package; there are {', '.join(SHIPPED)}")
    text = files("deepavfusion.data.sets").joinpath("classes", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def vocabulary(labels: Iterable[str]) -> tuple[str, ...]:
    """The distinct labels in alphabetical order; by value if all are integers, so that class 10 follows class 9."""
    distinct = set(labels)
    if distinct and all(re.fullmatch(r"\d+", label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def known(label: str, classes: Collection[str], place: str) -> str:
    """The label itself, if it is one of the classes.

    Raises:
        ValueError: it is none; names the place and the class nearest to it.
    """
    if label not in classes:
        near = difflib.get_close_matches(str(label), classes, n=1, cutoff=0.0)
        raise ValueError(f"{place}: {label!r} is not among the {len(classes)} classes; the nearest is {near[0]!r}")
    return label


def class_folder(label: str) -> str:
    """The folder that clips of a class usually lie in: blanks, commas and parentheses become underscores."""
    return re.sub(r"[ ,()]", "_", label)


@cache
def _instruments() -> dict[str, str]:
    prefix = "playing "
    names = {}
    for label in shipped_classes("vggsound"):
        if label.startswith(prefix):
            whole = label.removeprefix(prefix)
            names.update(dict.fromkeys((whole, *whole.split(", ")), label))
    return names


def instrument_class(name: str, place: str) -> str:
    """The VGGSound class an instrument's short name stands for, as the lists of VGGSound-Music and others spell it.

    `violin`, `violin,_fiddle` and `violin, fiddle` all give `playing violin, fiddle`.

    Raises:
        ValueError: it stands for none; names the place and the nearest name.
    """
    names = _instruments()
    return names[known(name.replace("_", " ").strip(), names, place)]
