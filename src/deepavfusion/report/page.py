"""From the parts of a report to one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

from deepavfusion.report.markup import Markup, element, fragment
from deepavfusion.report.plots import (
    draw_curve,
    draw_interval,
    draw_score_axis,
    draw_sounding,
    interval_text,
    score_axis,
)
from deepavfusion.report.scales import duration, score
from deepavfusion.report.sections import (
    ClipPlayer,
    ClipRow,
    CommandBlock,
    Curve,
    Facts,
    Missing,
    Page,
    Part,
    PictureStrip,
    ScoreGroup,
    ScoreTable,
    Section,
    Timing,
)

WIDE_PICTURE = 900
"""Pictures of more pixels across scroll sideways on a narrow screen, where shrinking would make them unreadable."""


def build_page(page: Page) -> str:
    """The page as HTML text: styles, script, pictures and clips inside; everything it names is escaped."""
    sections = fragment(_section(section) for section in page.sections)
    figures = [
        element("div", element("dt", f.name), element("dd", f.value), element("dd", f.note, class_="note"))
        for f in page.figures
    ]
    contents = [element("li", element("a", s.title, href=f"#{s.anchor}")) for s in page.sections]
    return Template(_asset("page.html")).substitute(
        title=fragment(page.title),
        lead=fragment(page.lead),
        figures=element("dl", figures, class_="figures") if figures else "",
        contents=element("nav", element("ul", contents), aria_label="Contents"),
        sections=sections,
        style=_asset("page.css"),
        script=_asset("page.js"),
    )


@cache
def _asset(name: str) -> str:
    return (files("deepavfusion.report") / "assets" / name).read_text(encoding="utf-8")


def _section(section: Section) -> Markup:
    parts: list[Markup] = []
    small: list[Markup] = []
    for part in section.parts:
        is_small = isinstance(part, Curve) and part.small
        if small and not is_small:
            parts.append(element("div", small, class_="small-curves"))
            small = []
        (small if is_small else parts).append(_part(part))
    if small:
        parts.append(element("div", small, class_="small-curves"))
    head = element("header", element("h2", section.title), element("p", section.lead) if section.lead else None)
    return element("section", head, element("div", parts, class_="parts"), id=section.anchor)


def _part(part: Part) -> Markup:
    return _DRAWN[type(part)](part)


def _pictures(strip: PictureStrip) -> Markup:
    last = len(strip.pictures) - 1
    frames, choices = [], []
    for place, picture in enumerate(strip.pictures):
        image = element("img", src=picture.uri, alt=picture.alt, width=picture.width, height=picture.height)
        wide = picture.width > WIDE_PICTURE
        box = element("div", image, class_="scroll wide", tabindex=0, role="group", aria_label=picture.alt)
        frames.append(element("div", box if wide else image, element("p", picture.caption), class_="frame"))
        button = element("input", type="radio", name="shown", value=place, checked=place == last)
        choices.append(element("label", button, element("span", picture.label or picture.caption)))
    return element(
        "figure",
        element("figcaption", element("strong", strip.title), element("span", strip.note) if strip.note else None),
        # A form of its own keeps the choices of one strip apart from those of another.
        element("form", element("fieldset", element("legend", "Shown:"), choices, hidden=True)) if last else None,
        frames,
        class_="pictures",
    )


def _score_table(table: ScoreTable) -> Markup:
    axis = score_axis(table)
    compared = any(row.difference for group in table.groups for row in group.rows)
    percent = f" {table.confidence:.0%} interval" if table.confidence is not None else " interval"
    heads = [element("th", "", scope="col"), element("th", "score", element("small", percent), scope="col")]
    if compared:
        heads.append(element("th", "model minus this", element("small", percent), scope="col"))
    heads.append(element("td", draw_score_axis(axis), class_="drawn"))
    bodies = [_score_group(group, axis, compared) for group in table.groups]
    header = element("thead", element("tr", heads))
    shown = len(bodies) if len(bodies) <= table.num_shown + 1 else table.num_shown  # one more is not worth folding
    counts = [f"{table.num_scored:,} clips scored"]
    counts += [f"{count:,} left out ({cause})" for cause, count in table.left_out.items()]
    counts += [f"{count:,} counted as wrong ({cause})" for cause, count in table.counted_as_wrong.items()]
    if not table.left_out:
        counts.append("none left out")
    note = "Differences in bold have an interval that excludes 0." if compared else ""
    return element(
        "figure",
        element("figcaption", element("strong", table.protocol), element("span", ", ".join(counts) + ". " + note)),
        element("table", header, bodies[:shown], class_="scores"),
        _more_scores(header, bodies[shown:]),
    )


def _more_scores(header: Markup, bodies: list[Markup]) -> Markup | None:
    if not bodies:
        return None
    summary = element("summary", f"{len(bodies)} more scores")
    return element("details", summary, element("table", header, bodies, class_="scores"))


def _score_group(group: ScoreGroup, axis: Any, compared: bool) -> Markup:
    rows = [element("tr", element("th", group.name, colspan=4 if compared else 3, scope="rowgroup"), class_="group")]
    for row in group.rows:
        cells = [
            element("th", row.name, scope="row"),
            element("td", element("b", score(row.score.value)), " ", element("small", interval_text(row.score))),
        ]
        if compared:
            cells.append(_difference(row.difference) if row.difference else element("td"))
        cells.append(element("td", draw_interval(row.score, axis), class_="drawn"))
        rows.append(element("tr", cells, class_="baseline" if row.is_baseline else f"model tone-{group.tone}"))
    return element("tbody", rows)


def _difference(difference: Any) -> Markup:
    value = score(difference.value, signed=True)
    interval = element("small", interval_text(difference, signed=True))
    return element("td", element("b", value) if difference.excludes_zero else value, " ", interval)


def _clips(row: ClipRow) -> Markup:
    note = element("p", row.note, class_="note") if row.note else None
    return element("div", note, element("div", (_clip(clip) for clip in row.clips), class_="clips"))


def _clip(clip: ClipPlayer) -> Markup:
    player = element(
        clip.kind,
        src=clip.uri,
        poster=clip.poster if clip.kind == "video" else None,
        aria_label=clip.description,
        controls=True,
        playsinline=clip.kind == "video",
        preload="metadata",
    )
    triangle = element("svg", element("path", d="M2 1 15 8 2 15Z"), viewBox="0 0 16 16", aria_hidden="true")
    button = element("button", triangle, type="button", class_="play", aria_label=f"Play {clip.title}", hidden=True)
    screen = element("div", player, button, class_="screen") if clip.kind == "video" else player
    return element(
        "figure",
        screen,
        element("figcaption", element("strong", clip.title)),
        draw_sounding(clip.sources, clip.duration_seconds) if clip.sources else None,
        class_="clip",
        data_seconds=f"{clip.duration_seconds:g}",
    )


def _timing(timing: Timing) -> Markup:
    total = sum(stage.seconds for stage in timing.stages)
    rows = []
    for stage in timing.stages:
        share = stage.seconds / total if total else 0.0
        name = element("a", stage.name, href=f"#{stage.anchor}") if stage.anchor else stage.name
        command = _code(stage.command) if stage.command and not stage.anchor else None
        rows.append(
            element(
                "tr",
                element("th", name, command, scope="row"),
                element("td", duration(stage.seconds)),
                element(
                    "td", element("div", element("span", style=f"width:{share:.2%}"), class_="bar"), class_="drawn"
                ),
            )
        )
    foot = element("tr", element("th", "together", scope="row"), element("td", duration(total)), element("td"))
    return element("table", element("tbody", rows), element("tfoot", foot), class_="timing")


def _command(block: CommandBlock) -> Markup:
    return element("pre", _code(block.command), class_="command", tabindex=0, aria_label="Command")


def _code(command: str) -> Markup:
    """A command line that breaks between words only, not after the dashes of an option."""
    words = [element("span", word) if word else word for word in command.split(" ")]
    return element("code", ([" ", word] if place else word for place, word in enumerate(words)))


def _facts(facts: Facts) -> Markup:
    rows = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in facts.rows]
    table = element("table", element("tbody", rows), class_="facts" if facts.folded else "facts short")
    if facts.folded:
        return element("details", element("summary", f"{facts.title}, {len(facts.rows)} entries"), table)
    return element("figure", element("figcaption", element("strong", facts.title)), table)


def _missing(missing: Missing) -> Markup:
    return element("p", missing.what, " Looked for ", element("code", missing.looked_for), ".", class_="missing")


_DRAWN: dict[type, Callable[[Any], Markup]] = {
    Curve: draw_curve,
    PictureStrip: _pictures,
    ScoreTable: _score_table,
    ClipRow: _clips,
    Timing: _timing,
    CommandBlock: _command,
    Facts: _facts,
    Missing: _missing,
}
