"""Results as HTML, one card per task. Everything that comes from a file or a model is escaped (`report.markup`)."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from deepavfusion.audio import SAMPLE_RATE
from deepavfusion.drawing.separation import RANGE_DB, level_db
from deepavfusion.inference.predictions import RESIDUAL, Classification, Embedding
from deepavfusion.page.analysis import Failed, Found, Working
from deepavfusion.page.charts import SHARES, Line, draw_timeline, share_scale
from deepavfusion.page.offers import WORDS, PageTask
from deepavfusion.report.markup import Markup, element, fragment
from deepavfusion.report.scales import duration, number
from deepavfusion.stft import N_FFT

MAX_ROWS = 200
"""Rows of a table; the record has them all."""
MAX_COMPARED = 160
"""Windows on a side of the picture of likeness; of more every k-th is shown."""

SHOWN_SECONDS = 60.0
"""Of a sound, in its spectrogram."""
MAX_COLUMNS = 700
"""Of a spectrogram, in pixels."""
_MAGMA = colormaps["magma"]

Address = Callable[[str], str]
"""From the name of a file of the results to its address on the page."""


def draw_found(found: Found, folder: Path, address: Address) -> Markup:
    """The card of a task that is done.

    Args:
        found: what.
        folder: where its files are.
        address: of them on the page.
    """
    if isinstance(found.result, Classification):
        body = _classes(found.result, found.record)
    elif isinstance(found.result, Embedding):
        body = _features(found.result)
    elif found.task == "separation":
        body = _sounds(found.record, folder, address)
    elif found.task == "search":
        body = _moments(found.record, folder, address)
    else:
        body = _maps(found.record, address)
    return _card(found.task, body)


def draw_failed(failed: Failed) -> Markup:
    """The card of a task that could not be done: why."""
    return _card(failed.task, element("p", failed.line, class_="problem", role="alert"))


def draw_working(working: Working, count: int) -> Markup:
    """How far a request is: a bar, and which task of how many."""
    part = min(1.0, working.done_seconds / working.all_seconds) if working.all_seconds > 0 else 0.0
    seconds = f", {working.done_seconds:.0f} of {working.all_seconds:.0f} s" if working.all_seconds > 0 else ""
    text = f"{WORDS[working.task].title}{seconds}"
    if count > 1:
        text += f" \N{MIDDLE DOT} task {working.number + 1} of {count}"
    share = 100 * (working.number + part) / count
    bar = element("span", element("i", style=f"width:{share:.1f}%"), class_="bar", aria_hidden="true")
    return element("div", element("span", text), bar, class_="working", role="status")


def draw_problem(line: str) -> Markup:
    """One line of what is wrong."""
    return element("p", line, class_="problem", role="alert") if line else Markup("")


def draw_note(line: str) -> Markup:
    """One line of what is so."""
    return element("p", line, class_="note", role="status") if line else Markup("")


def draw_download(address: str, name: str, num_bytes: int) -> Markup:
    """The link to the zip file of all results."""
    link = element("a", "Download all results", href=address, download=name, class_="download")
    return element("p", link, element("span", f"{name}, {_size(num_bytes)}"), class_="downloads")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.0f} KiB"


def _card(task: PageTask, *body: Markup) -> Markup:
    words = WORDS[task]
    head = element("header", element("h3", words.title), element("p", words.question))
    return element("section", head, body, class_=f"card {task}")


def _classes(found: Classification, record: Mapping[str, Any]) -> Markup:
    top = found.top()
    best = [found.classes.index(name) for name, _ in top]
    bars = element(
        "ol",
        (
            element(
                "li",
                element("i", class_=f"key tone-{tone}"),
                element("span", name, class_="name"),
                element("span", element("i", style=f"width:{100 * score:.1f}%"), class_=f"bar tone-{tone}"),
                element("b", f"{score:.2f}"),
            )
            for tone, (name, score) in enumerate(top)
        ),
        class_="classes",
    )
    scores = np.where(found.present[:, None], found.scores, np.nan)[:, best]
    lines = [Line(name, scores[:, i]) for i, (name, _) in enumerate(top)]
    title = "scores of the best classes over time"
    rows = [
        (
            f"{window['start_seconds']:.2f} \N{EN DASH} {window['end_seconds']:.2f}",
            ", ".join(f"{entry['class']} {entry['score']:.2f}" for entry in window["classes"][:3]) or "nothing to see",
        )
        for window in record["windows"]
    ]
    return fragment(
        bars,
        draw_timeline(title, found.centre_seconds, lines, found.duration_seconds),
        _table(f"{len(rows)} windows", ("seconds", "best classes"), rows),
    )


def _maps(record: Mapping[str, Any], address: Address) -> Markup:
    """Heat maps or masks: the video, or the image of a single moment, and the scores over time."""
    is_heat = record["task"] == "localization"
    moments, files = record["moments"], record["files"]
    if "film" in files:
        shown = element(
            "video",
            src=address(files["film"]),
            controls=True,
            playsinline=True,
            loop=True,
            preload="metadata",
            poster=address(files["picture"]),
            aria_label=f"{WORDS[record['task']].title} over the video",
        )
    else:
        shown = element("img", src=address(files["picture"]), alt=f"{WORDS[record['task']].title} over the image")
    key = "confidence" if is_heat else "share"
    times = np.array([moment["seconds"] for moment in moments])
    values = np.array([moment[key] for moment in moments], np.float32)
    best = moments[int(values.argmax())]
    if is_heat:
        place = best["peak"]
        line = (
            f"Most confident at {best['seconds']:.1f} s: {100 * place['x']:.0f} % from the left, "
            f"{100 * place['y']:.0f} % from the top (confidence {best['confidence']:.2f})."
        )
        legend: Markup | None = _heat_legend()
        up, name = SHARES, "confidence that something in the frame sounds"
    else:
        line = f"Largest at {best['seconds']:.1f} s: {100 * best['share']:.1f} % of the frame."
        legend = _mask_legend(record)
        up, name = share_scale(float(values.max())), "share of the frame that sounds"
    drawn = draw_timeline(
        f"{name}, over time",
        times,
        [Line(name, values)],
        record["duration_seconds"],
        up,
    )
    rows = [
        (
            f"{moment['seconds']:.2f}",
            f"{moment[key]:.3f}",
            ", ".join(entry["class"] for entry in moment.get("classes", [])) or "\N{EN DASH}",
        )
        for moment in moments
    ]
    return fragment(
        element("div", shown, class_="shown"),
        legend,
        element("p", line, class_="told"),
        element("p", element("i", class_="key tone-0"), name, class_="caption") if len(moments) > 1 else None,
        drawn if len(moments) > 1 else None,
        _table(f"{len(rows)} moments", ("seconds", key, "classes"), rows),
    )


def _heat_legend() -> Markup:
    return element(
        "p",
        element("span", "0"),
        element("i", class_="heat"),
        element("span", "1"),
        " score",
        class_="legend",
    )


def _mask_legend(record: Mapping[str, Any]) -> Markup | None:
    """The colours of the classes that occur, those that cover most first."""
    colours = record.get("colours", {})
    covered: dict[str, float] = {}
    for moment in record["moments"]:
        for entry in moment.get("classes", []):
            covered[entry["class"]] = covered.get(entry["class"], 0.0) + entry["share"]
    names = [name for name in sorted(covered, key=lambda name: -covered[name]) if name in colours][:12]
    if not names:
        return None
    return element(
        "p",
        (element("span", element("i", style=f"background:{colours[name]}", class_="swatch"), name) for name in names),
        class_="legend",
    )


def _sounds(record: Mapping[str, Any], folder: Path, address: Address) -> Markup:
    """A player and a spectrogram for every part, all on the colour scale of the recording, which stands first."""
    entries = record["sources"]
    length = min(SHOWN_SECONDS, record["duration_seconds"])
    sounds = [_beginning(folder / entry["file"]) for entry in entries]
    levels = [level_db(sound) for sound in (np.stack(sounds).sum(axis=0), *sounds)]
    top = float(levels[0].max())
    strips = [_strip(level, top, length) for level in levels]
    players = [
        element(
            "figure",
            element("figcaption", name, element("span", f"{number(round(entry['level_db'], 1))} dB")),
            strip,
            element("audio", src=address(entry["file"]), controls=True, preload="metadata", aria_label=name),
        )
        for name, strip, entry in zip(_source_names([e["name"] for e in entries]), strips[1:], entries, strict=True)
    ]
    shown = "" if record["duration_seconds"] <= SHOWN_SECONDS else "the first minute, "
    caption = element("figcaption", "recording", element("span", f"{shown}0 to {SAMPLE_RATE // 2000} kHz"))
    return element("div", element("figure", caption, strips[0]), players, class_="players")


def _beginning(path: Path) -> NDArray[np.float32]:
    sound, _ = soundfile.read(path, frames=round(SHOWN_SECONDS * SAMPLE_RATE), dtype="float32")
    return np.pad(sound, (0, max(0, N_FFT - len(sound))))


def _strip(level: NDArray[np.float32], top: float, seconds: float) -> Markup:
    """A spectrogram `(bins, frames)` in decibels, low frequencies at the bottom, with a mark for what plays."""
    frames = np.linspace(0, level.shape[1] - 1, min(level.shape[1], MAX_COLUMNS)).round().astype(int)
    share = np.clip((level[::-1, frames] - top + RANGE_DB) / RANGE_DB, 0, 1)
    pixels = Image.fromarray((255 * _MAGMA(share)[..., :3]).astype(np.uint8)).resize((len(frames), 128))
    buffer = io.BytesIO()
    pixels.save(buffer, "jpeg", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return element(
        "div",
        element("img", src=f"data:image/jpeg;base64,{data}", alt="spectrogram"),
        element("i", class_="playhead"),
        class_="spectrogram",
        data_seconds=f"{max(seconds, 1e-3):.4f}",
    )


def _source_names(names: Sequence[str]) -> list[str]:
    """What a visitor calls the parts: the picture's own, or those of its two halves, and the rest."""
    sources = [name for name in names if name != RESIDUAL]
    words = ["what the frame shows"] if len(sources) == 1 else ["left half of the frame", "right half"]
    return [*words, *sources[len(words) :], "residual"]


def _features(found: Embedding) -> Markup:
    streams = ", ".join(f"{name} ({rows.shape[1]} features)" for name, rows in found.features.items())
    told = element(
        "p",
        f"{len(found.start_seconds)} windows of {duration(found.window_seconds)}; mean tokens of {streams}.",
        class_="told",
    )
    rows, present = found.features["fusion"], found.present["fusion"]
    if present.sum() < 2:
        return fragment(told, element("p", "Only one window, so there is nothing to compare.", class_="told"))
    low, picture = _likeness(rows[present])
    return fragment(
        told,
        element("img", src=picture, alt="similarity of every window to every other", class_="likeness"),
        element(
            "p",
            "Cosine similarity of the fusion features of every window with every other, from left to right and from "
            f"top to bottom: from {low:.2f} (dark) to 1 (light).",
            class_="told",
        ),
    )


def _likeness(rows: NDArray[np.float32]) -> tuple[float, str]:
    """The least cosine, and a picture of all as a data address."""
    rows = rows[:: -(-len(rows) // MAX_COMPARED)].astype(np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosines = np.clip(unit @ unit.T, -1, 1)
    low = float(cosines.min())
    share = (cosines - low) / max(1 - low, 1e-9)
    dark, light = np.array([23, 28, 58.0]), np.array([250, 214, 120.0])
    pixels = dark + share[..., None] * (light - dark)
    buffer = io.BytesIO()
    Image.fromarray(np.round(pixels).astype(np.uint8)).save(buffer, "png")
    return low, f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


SENSES = {"image": "image", "audio": "sound", "both": "image and sound"}
"""What of a moment is similar, for visitors."""


def _moments(record: Mapping[str, Any], folder: Path, address: Address) -> Markup:
    """The moments of an archive that were found, best first, each to see and hear."""
    hint = "; by a quicker way that may miss some" if record["approximate"] else ""
    told = element(
        "p",
        f"Compared with {record['num_windows']:,} windows of the archive: {record['compared']}{hint}.",
        class_="told",
    )
    if not record["moments"]:
        return fragment(told, element("p", "The archive has nothing to compare it with.", class_="told"))
    return fragment(told, element("ol", (_moment(m, folder, address) for m in record["moments"]), class_="moments"))


def _moment(moment: Mapping[str, Any], folder: Path, address: Address) -> Markup:
    files, name = moment["files"], moment["file"]
    start, end = moment["start_seconds"], moment["end_seconds"]
    poster = address(files["picture"]) if "picture" in files else None
    shown: Markup | None = None
    if "problem" in moment:
        shown = element("p", moment["problem"], class_="problem")
    elif "film" in files:
        shown = element(
            "video",
            src=address(files["film"]),
            controls=True,
            playsinline=True,
            preload="metadata",
            poster=poster,
            aria_label=f"moment of {name}",
        )
    elif poster is not None:
        shown = element("img", src=poster, alt=f"moment of {name}", loading="lazy")
    elif "sound" in files:
        level = level_db(_beginning(folder / files["sound"]))
        shown = _strip(level, float(level.max()), end - start)
    sound = None
    if "sound" in files:
        sound = element(
            "audio", src=address(files["sound"]), controls=True, preload="metadata", aria_label=f"moment of {name}"
        )
    span = f"{start:.1f} \N{EN DASH} {end:.1f} s, " if end > start else ""
    return element(
        "li",
        element("div", shown, class_="shown"),
        sound,
        element("p", element("b", f"{moment['rank']}. "), name, class_="name"),
        element("p", f"with {moment['sound']}", class_="told") if "sound" in moment else None,
        element("p", f"{span}similarity {moment['similarity']:.4f}, by {SENSES[moment['by']]}", class_="told"),
        class_="moment",
    )


def _table(summary: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    shown = rows[:MAX_ROWS]
    more = f"; the first {MAX_ROWS} here, all in the download" if len(rows) > MAX_ROWS else ""
    return element(
        "details",
        element("summary", summary + more),
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", (element("th", name, scope="col") for name in head))),
                element("tbody", (element("tr", (element("td", cell) for cell in row)) for row in shown)),
            ),
            class_="scroll",
        ),
    )
