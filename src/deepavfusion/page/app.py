"""The page: its inputs, its buttons and what they do.

Results are our own HTML (`cards`). The framework, gradio, gives the inputs (uploads, camera, microphone), the queue,
and the connection to the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any, Literal
from urllib.parse import quote

import gradio as gr

from deepavfusion.archive.config import Senses
from deepavfusion.page.analysis import HALVES, Analyst, Finished, Found, Request, Working
from deepavfusion.page.cards import draw_download, draw_failed, draw_found, draw_note, draw_problem, draw_working
from deepavfusion.page.examples import Example
from deepavfusion.page.front import draw_examples, draw_head, draw_invitation, draw_lacking
from deepavfusion.page.intake import Given, Limits, describe, length, look_at
from deepavfusion.page.local_files import as_path, only_uploads
from deepavfusion.page.offers import PageTask, chosen_first, offers_of
from deepavfusion.page.serve_config import ServeConfig
from deepavfusion.page.visits import Place, Visits
from deepavfusion.report.markup import Markup

Kind = Literal["video", "sound", "photo"]
COLUMNS: tuple[tuple[PageTask, ...], ...] = (
    ("classification", "separation", "embedding"),
    ("localization", "segmentation"),
)
"""Of the cards of results, side by side where there is room; a search is below them, over the whole width."""
BY: tuple[tuple[str, Senses], ...] = (("all it has", "auto"), ("image", "image"), ("sound", "audio"))
"""Of what is given."""
WITHIN: tuple[tuple[str, Senses], ...] = (("any", "auto"), ("images", "image"), ("sounds", "audio"))
"""Of the archive."""
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Of events that take no time."""
CLICK = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-number]");
  if (button) trigger("click", { number: Number(button.dataset.number) });
});"""
"""Of the examples: which one it was."""
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Liberation Sans", "Arial", "sans-serif")
MONO = ("ui-monospace", "Cascadia Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")


class Page:
    """The page of one server."""

    def __init__(
        self, config: ServeConfig, analyst: Analyst, visits: Visits, examples: Sequence[Example], name: str
    ) -> None:
        """
        Args:
            config: limits and steps.
            analyst: does the work.
            visits: whose files are whose.
            examples: ready to click; none if there are none.
            name: of the model, as the page calls it.
        """
        self.config, self.analyst, self.visits, self.examples, self.name = config, analyst, visits, examples, name
        self.offers = offers_of(analyst.tasks)
        self.tasks = tuple(offer.task for offer in self.offers)
        """In the order of their cards."""
        self.limits = Limits(config.max_upload_bytes, config.max_seconds)

    def build(self) -> gr.Blocks:
        """The page, ready to be mounted."""
        if self.examples:
            gr.set_static_paths([self.examples[0].poster.parent])
        with gr.Blocks(title="deepavfusion", analytics_enabled=False, fill_width=True) as blocks:
            gr.HTML(draw_head(self.name), elem_id="head")
            chosen = gr.HTML(draw_examples(self.examples), elem_id="examples", js_on_load=CLICK)
            with gr.Row(elem_id="desk"):
                with gr.Column(elem_id="inputs"):
                    tabs, inputs = self._inputs()
                    about = gr.HTML("", elem_id="about")
                    tasks = gr.CheckboxGroup(
                        [(offer.words.title, offer.task) for offer in self.offers if not offer.lacking],
                        value=list(chosen_first(self.offers)),
                        label="Tasks",
                        elem_id="tasks",
                    )
                    gr.HTML(draw_lacking(self.offers), elem_id="lacking")
                    parts = gr.Radio(
                        [("whole frame", "whole"), ("left and right half", "halves")],
                        value="whole",
                        label="Sources to separate",
                        elem_id="parts",
                        visible="separation" in self.analyst.predictor.tasks,
                    )
                    archive = self.analyst.archive
                    by = gr.Radio(BY, value="auto", label="Search by", elem_id="by", visible=archive is not None)
                    within = gr.Radio(
                        WITHIN,
                        value="auto",
                        label="Compare with",
                        elem_id="within",
                        visible=archive is not None and archive.is_joint,
                    )
                    with gr.Row(elem_id="buttons"):
                        run = gr.Button("Run", variant="primary", elem_id="run", scale=3)
                        stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
                with gr.Column(elem_id="results"):
                    status = gr.HTML(draw_invitation(self.limits, 60 * self.config.keep_minutes), elem_id="status")
                    download = gr.HTML("", elem_id="download")
                    cards: dict[PageTask, gr.HTML] = {}
                    with gr.Row(elem_id="cards"):
                        for column in COLUMNS:
                            with gr.Column(min_width=0):
                                cards |= {task: gr.HTML("", elem_id=f"card-{task}") for task in column}
                    if "search" in self.tasks:
                        cards["search"] = gr.HTML("", elem_id="card-search")
            gr.on([part.change for part in inputs], self.take, inputs, about, **QUIET)
            answer: dict[str, Any] = {
                "fn": self.answer,
                "inputs": [*inputs, tasks, parts, by, within],
                "outputs": [status, download, *(cards[task] for task in self.tasks)],
                "show_progress": "minimal",
                "show_progress_on": status,
                "api_visibility": "private",
                "concurrency_id": "model",
                "concurrency_limit": 1,
            }
            run.click(**answer)
            stop.click(self.stop, None, None, **QUIET)
            if self.examples:
                chosen.click(self.choose, None, [tabs, *inputs], **QUIET).then(**answer)
            blocks.unload(self.leave)
        only_uploads(blocks.blocks.values())
        blocks.has_launched = True  # else the framework would not check the files that requests name
        blocks.queue(max_size=self.config.max_waiting, default_concurrency_limit=1, api_open=False)
        return blocks

    def _inputs(self) -> tuple[gr.Tabs, list[Any]]:
        """The tabs, and in the order of `given_of` which is open and what is in them."""
        kind = gr.State("video")
        camera = gr.WebcamOptions(mirror=False)  # its size is asked for in assets/page.js
        sounds: dict[str, Any] = {
            "sources": ["upload", "microphone"],
            "type": "filepath",
            "editable": False,
            "interactive": True,
            "buttons": [],
        }
        with gr.Tabs(selected="video") as tabs:
            with gr.Tab("Video", id="video") as video_tab:
                video = gr.Video(
                    label="Video",
                    sources=["upload", "webcam"],
                    include_audio=True,
                    webcam_options=camera,
                    show_label=False,
                    interactive=True,
                    buttons=[],
                )
            with gr.Tab("Sound", id="sound") as sound_tab:
                sound = gr.Audio(label="Sound", show_label=False, **sounds)
            with gr.Tab("Photo + sound", id="photo") as photo_tab:
                photo = gr.Image(
                    label="Photo",
                    sources=["upload", "webcam"],
                    type="filepath",
                    webcam_options=camera,
                    interactive=True,
                    buttons=[],
                )
                heard = gr.Audio(label="Sound (optional)", **sounds)
        for tab, own in ((video_tab, "video"), (sound_tab, "sound"), (photo_tab, "photo")):
            tab.select(lambda own=own: own, None, kind, **QUIET)
        return tabs, [kind, *map(as_path, (video, sound, photo, heard))]

    def take(
        self,
        kind: Kind,
        video: str | None,
        sound: str | None,
        photo: str | None,
        heard: str | None,
        request: gr.Request,
    ) -> Markup:
        """Files have been given or taken away: note whose they are, and say what they are."""
        self.visits.claim(_visit(request), (video, sound, photo, heard))
        given = given_of(kind, video, sound, photo, heard)
        if given is None:
            return Markup("")
        try:
            info = look_at(given, self.limits)
        except ValueError as error:
            return draw_problem(str(error))
        return draw_note(f"{given.name}: {describe(info)}")

    def choose(self, event: gr.EventData) -> list[Any]:
        """An example has been clicked: put it where files are given."""
        number = event._data.get("number") if isinstance(event._data, dict) else None
        if not isinstance(number, int) or not 0 <= number < len(self.examples):
            raise gr.Error("There is no such example.", print_exception=False)
        example = self.examples[number]
        kind = "video" if example.video else "photo"
        return [gr.Tabs(selected=kind), kind, example.video, None, example.photo, example.sound]

    def answer(
        self,
        kind: Kind,
        video: str | None,
        sound: str | None,
        photo: str | None,
        heard: str | None,
        tasks: list[str],
        parts: str,
        by: Senses,
        within: Senses,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Run the chosen tasks; yields status, download and cards as they change."""
        given = given_of(kind, video, sound, photo, heard)
        wanted = tuple(offer.task for offer in self.offers if not offer.lacking and offer.task in tasks)
        empty = [""] * len(self.tasks)
        try:
            if given is None:
                raise ValueError(f"Add a {kind} first, or choose an example.")
            if not wanted:
                raise ValueError("Select at least one task.")
            look_at(given, self.limits)
        except ValueError as error:
            yield [draw_problem(str(error)), "", *empty]
            return
        visit = _visit(request)
        place = self.visits.begin(visit, given.folder)
        boxes = HALVES if parts == "halves" else ()
        asked = Request(given, wanted, boxes, self.config.hop_seconds, self.config.step_seconds, by, within)
        yield [draw_working(Working(wanted[0], 0), len(wanted)), "", *empty]
        for event in self.analyst.analyse(asked, place, lambda: self.visits.finish(visit, place)):
            status: Any = gr.skip()
            download: Any = gr.skip()
            cards: list[Any] = [gr.skip()] * len(self.tasks)
            if isinstance(event, Working):
                status = draw_working(event, len(wanted))
            elif isinstance(event, Finished):
                words = "Stopped" if event.given_up else f"Done in {length(event.seconds)}"
                status, download = draw_note(f"{words}: {given.name}"), self._download(place)
            elif isinstance(event, Found):
                cards[self.tasks.index(event.task)] = draw_found(event, place.results, _addresses(place))
            else:
                cards[self.tasks.index(event.task)] = draw_failed(event)
            yield [status, download, *cards]

    def stop(self, request: gr.Request) -> None:
        """The visitor does not want to wait any longer."""
        self.visits.stop(_visit(request))

    def leave(self, request: gr.Request) -> None:
        """The tab has been closed."""
        self.visits.end(_visit(request))

    def _download(self, place: Place) -> Markup:
        path = self.visits.find(place.token, place.archive.name)
        if path is None:
            return Markup("")
        return draw_download(_addresses(place)(path.name), f"deepavfusion-{path.name}", path.stat().st_size)


def given_of(kind: Kind, video: str | None, sound: str | None, photo: str | None, heard: str | None) -> Given | None:
    """What stands in the open tab; None if nothing does."""
    if kind == "photo" and photo and heard:
        return Given((photo, heard))
    path = {"video": video, "sound": sound, "photo": photo}[kind]
    return Given((path,)) if path else None


def appearance() -> dict[str, Any]:
    """What the framework is told of the page's looks: fonts of the visitor's system, our styles and script."""
    assets = resources.files("deepavfusion.page") / "assets"
    script = (assets / "page.js").read_text(encoding="utf-8")
    return {
        "theme": gr.themes.Default(primary_hue="blue", neutral_hue="gray", font=FONTS, font_mono=MONO),
        "css": (assets / "page.css").read_text(encoding="utf-8"),
        "head": f"<script>{script}</script>",
    }


def _visit(request: gr.Request) -> str:
    return str(request.session_hash)


def _addresses(place: Place) -> Callable[[str], str]:
    return lambda name: f"results/{place.token}/{quote(name)}"
