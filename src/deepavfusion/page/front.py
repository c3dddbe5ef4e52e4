"""What the page shows before any result: header, examples, invitation, tasks that the model cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from deepavfusion.page.examples import Example
from deepavfusion.page.intake import Limits, length
from deepavfusion.page.offers import Offer
from deepavfusion.report.markup import Markup, element, fragment


def draw_head(name: str) -> Markup:
    """The title, and which model it is."""
    return fragment(
        element("h1", "deepavfusion"),
        element(
            "p",
            "What sounds, and where? Upload a video, a sound, or a photo and a sound. Model: ",
            element("code", name),
            ".",
        ),
    )


def draw_examples(examples: Sequence[Example]) -> Markup:
    """A button for each, with its number; nothing if there are none."""
    if not examples:
        return Markup("")
    buttons = (
        element(
            "button",
            element("img", src=f"gradio_api/file={quote(str(example.poster))}", alt=""),
            element("span", element("b", example.title), element("small", example.note)),
            type="button",
            data_number=number,
        )
        for number, example in enumerate(examples)
    )
    return fragment(element("p", "Examples:", class_="caption"), element("div", buttons, class_="strip"))


def draw_invitation(limits: Limits, keep_seconds: float) -> Markup:
    """What may be given, and what becomes of it."""
    return element(
        "div",
        element("p", "Results appear here."),
        element(
            "p",
            f"Recordings of up to {limits.max_bytes / 2**20:g} MiB and {length(limits.max_seconds)}. Files stay on the "
            f"computer that serves this page, and are deleted when the tab is closed, or idle for "
            f"{length(keep_seconds)}.",
        ),
        class_="invitation",
    )


def draw_lacking(offers: Sequence[Offer]) -> Markup:
    """The tasks that cannot be chosen, and why; nothing if there are none."""
    missing = [offer for offer in offers if offer.lacking]
    if not missing:
        return Markup("")
    return element(
        "details",
        element(
            "summary", "Not available with this model: " + ", ".join(offer.words.title.lower() for offer in missing)
        ),
        element("ul", (element("li", element("b", offer.words.title), f": {offer.lacking}") for offer in missing)),
    )
