"""HTML that cannot be broken by what it shows: every text is escaped unless it was built here.

`element` makes one element. Texts among its children and all attribute values are escaped; `Markup`, what `element`
returns, is taken as it is. Adding two of them with `+` gives plain text, which would be escaped: join them with
`fragment`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

VOID = frozenset({"img", "input", "br"})
"""Elements that have no end tag."""


class Markup(str):
    """Text that is HTML already."""


Child: TypeAlias = "str | Iterable[Child] | None"
Attribute: TypeAlias = str | int | float | bool | None


def fragment(*children: Child) -> Markup:
    """Children in a row: None is nothing, an iterable is its items, text is escaped."""
    return Markup("".join(_flat(children)))


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """One element.

    Args:
        name: of the element, such as `td`.
        children: what is inside, as in `fragment`.
        attributes: an underscore at the end is dropped (`class_`), others become hyphens (`aria_label`); None and
            False leave the attribute out, True gives it no value.

    Raises:
        ValueError: children in an element that can have none.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    start = f"<{' '.join(words)}>"
    if name in VOID:
        if children:
            raise ValueError(f"<{name}> can have no children")
        return Markup(start)
    return Markup(f"{start}{fragment(*children)}</{name}>")


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield html.escape(child)
        else:
            yield from _flat(child)
