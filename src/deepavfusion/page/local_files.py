"""Inputs of the page that accept uploads to this server only, and pass the files on unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.data_classes import FileData, ImageData

Component = TypeVar("Component", gr.Video, gr.Audio, gr.Image)


def as_path(component: Component) -> Component:
    """Let a component give and take the path of its file, without opening it.

    By itself the framework decodes photos before any limit is looked at. The instance is changed, for to define a class
    of component writes a file beside its source.

    Returns:
        the same component.
    """
    kind = ImageData if isinstance(component, gr.Image) else FileData

    def path_of(payload: Any) -> str | None:
        return None if payload is None else payload.path

    def payload_of(path: Any) -> Any:
        return None if path is None else kind(path=str(path), orig_name=os.path.basename(str(path)))

    own: Any = component
    own.preprocess, own.postprocess = path_of, payload_of
    return component


def only_uploads(components: Iterable[Any]) -> None:
    """Let components refuse files that were not uploaded here.

    Whatever a request sends to any component may name a file. By itself the framework would copy it from anywhere on
    this computer, or fetch it from another one, into the folder of uploads.
    """
    for component in components:
        _guard(component)


def _guard(component: Any) -> None:
    folder = Path(component.GRADIO_CACHE).resolve()
    move, async_move = component.move_resource_to_block_cache, component.async_move_resource_to_block_cache

    def check(path: Any) -> None:
        if path is not None and ("://" in str(path) or not Path(path).resolve().is_relative_to(folder)):
            raise gr.Error("This file was not uploaded here.", print_exception=False)

    def move_upload(path: Any) -> Any:
        check(path)
        return move(path)

    async def async_move_upload(path: Any) -> Any:
        check(path)
        return await async_move(path)

    component.move_resource_to_block_cache = move_upload
    component.async_move_resource_to_block_cache = async_move_upload
