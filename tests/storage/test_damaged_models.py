"""Whatever stands in the place of a model's files, every verb answers with one line that names the file."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepavfusion.cli import main
from deepavfusion.storage.bundle import Bundle
from tests.inference.tiny_models import tiny_models, write_film

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head></html>\n"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        state = load_file(path)
        change(state)
        save_file(state, path)

    return damage


def with_record(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        record = json.loads(path.read_text())
        path.write_text(json.dumps(change(record) or record))

    return damage


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FIRST = "encoder.image.blocks.0.norm1.weight"
NOT_SEEN_BY_INSPECT = ("another model's keys", "a shape", "a key missing", "whole numbers")
"""What is wrong only beside the other file."""
BY_EVERY_VERB = (
    "weights cut",
    "weights absent",
    "another model's keys",
    "config cut",
    "config absent",
    "a newer format",
)
"""All verbs read files in the same way; a few kinds of damage show it."""
DAMAGED: dict[str, tuple[Any, ...]] = {
    "weights cut": (WEIGHTS, cut, "is damaged, cut off"),
    "weights cut in the header": (WEIGHTS, lambda p: p.write_bytes(p.read_bytes()[:100]), "is damaged, cut off"),
    "weights empty": (WEIGHTS, lambda p: p.write_bytes(b""), "is empty"),
    "weights zeros": (WEIGHTS, lambda p: p.write_bytes(bytes(4096)), "begins with zeros"),
    "weights a web page": (WEIGHTS, lambda p: p.write_bytes(PAGE), "is a web page"),
    "weights a pointer": (WEIGHTS, lambda p: p.write_bytes(LFS), "is a pointer of git-lfs"),
    "weights a pickle": (WEIGHTS, lambda p: p.write_bytes(pickle.dumps({"a": 1})), "a file of torch or a pickle"),
    "weights of torch": (WEIGHTS, lambda p: torch.save({"a": torch.ones(1)}, p), "a file of torch or a pickle"),
    "weights text": (WEIGHTS, lambda p: p.write_text("weights come here"), "is damaged, cut off"),
    "weights absent": (WEIGHTS, Path.unlink, "no model.safetensors"),
    "weights a folder": (WEIGHTS, as_folder, "no model.safetensors"),
    "another model's keys": (
        WEIGHTS,
        lambda p: save_file({f"layer{i}.conv.weight": torch.ones(2) for i in range(9)}, p),
        "does not fit this model: missing ",
    ),
    "a shape": (
        WEIGHTS,
        with_tensors(lambda s: s.update({FIRST: torch.ones(5)})),
        "wrong shape",
        "image.blocks.0.norm1.weight [5] instead of [16]",
    ),
    "a key missing": (WEIGHTS, with_tensors(lambda s: s.__delitem__(FIRST)), "missing", "image.blocks.0.norm1.weight"),
    "whole numbers": (
        WEIGHTS,
        with_tensors(lambda s: s.update({FIRST: torch.ones(16, dtype=torch.int8)})),
        "wrong type",
        "image.blocks.0.norm1.weight of int8",
    ),
    "config cut": (CONFIG, cut, "is damaged, cut off"),
    "config empty": (CONFIG, lambda p: p.write_text(""), "is empty"),
    "config a web page": (CONFIG, lambda p: p.write_bytes(PAGE), "is a web page"),
    "config a pointer": (CONFIG, lambda p: p.write_bytes(LFS), "is a pointer of git-lfs"),
    "config of bytes": (CONFIG, lambda p: p.write_bytes(b"\xff\xfe{}"), "is damaged, cut off"),
    "config a list": (CONFIG, lambda p: p.write_text("[1, 2]"), "holds a list, not an object"),
    "config a number": (CONFIG, lambda p: p.write_text("3"), "holds a int, not an object"),
    "config of another program": (
        CONFIG,
        lambda p: p.write_text('{"model_type": "bert", "hidden_size": 768}'),
        "not a deepavfusion model configuration",
    ),
    "config absent": (CONFIG, Path.unlink, "config.json"),
    "a newer format": (CONFIG, with_record(lambda r: {**r, "format_version": 9}), "format version 9 is newer"),
    "a format in words": (CONFIG, with_record(lambda r: {**r, "format_version": "1"}), "not a deepavfusion model"),
    "an unknown model": (CONFIG, with_record(lambda r: {**r, "model": "Dreamer"}), "does not know the model Dreamer"),
    "an unknown key": (CONFIG, with_record(lambda r: r["model_config"].update(wings=2)), "does not know wings"),
    "no settings": (CONFIG, with_record(lambda r: {**r, "model_config": None}), "not a deepavfusion model"),
    "text for a number": (
        CONFIG,
        with_record(lambda r: r["model_config"]["encoder"].update(embed_dim="16")),
        "embed_dim '16' must be int",
    ),
    "a number for a list": (
        CONFIG,
        with_record(lambda r: r["model_config"]["encoder"].update(image_size=32)),
        "image_size 32 must be tuple[int, int]",
    ),
    "nothing for an encoder": (
        CONFIG,
        with_record(lambda r: r["model_config"].update(encoder=None)),
        "encoder None must be EarlyFusionConfig",
    ),
    "settings that do not fit": (
        CONFIG,
        with_record(lambda r: r["model_config"]["encoder"].update(num_heads=3)),
        "num_heads 3 does not divide embed_dim 16",
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models()["classification"].save_pretrained(folder / "good" / "model")
    write_film(folder / "clips" / "a" / "one.mp4", 1.0)
    write_film(folder / "clips" / "b" / "two.mp4", 1.0, seed=1)
    return folder


def one_line_of(words: list[str], capsys: pytest.CaptureFixture[str], codes: tuple[int, ...] = (1, 2)) -> str:
    capsys.readouterr()
    assert main(words) in codes, words
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if "error: " in line]
    assert len(errors) == 1, lines
    assert not any("Traceback" in line for line in lines)
    assert len(errors[0]) < 1500
    return errors[0]


@pytest.mark.parametrize("kind", DAMAGED)
def test_every_way_in_names_the_file_and_what_is_wrong(
    kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, *said = DAMAGED[kind]
    run = tmp_path / "run"
    shutil.copytree(place / "good", run)
    damage(run / "model" / name)
    film, clips = str(place / "clips" / "a" / "one.mp4"), str(place / "clips")
    starts = ["--data.source", clips, "--data.num_workers", "0"]
    verbs = [
        ["predict", "classification", film, "--model", str(run), "--out", str(tmp_path / "p")],
        ["evaluate", "classification", str(run), *starts, "--data.split", "all"],
        ["embed", "--from", str(run), "--out", str(tmp_path / "f.npz"), *starts],
        ["inspect", str(run / "model")],
        ["export", str(run), "--out", str(tmp_path / "m.pt2")],
        ["bundle", str(tmp_path / "b"), "--classification", str(run)],
        ["train", "classification", "--from", str(run), "--run_dir", str(tmp_path / "t"), *starts],
        ["serve", str(run), "--port", "0"],
    ]
    for words in verbs if kind in BY_EVERY_VERB else (verbs[0], verbs[3]):
        if words[0] == "inspect" and kind in NOT_SEEN_BY_INSPECT:
            continue
        line = one_line_of(words, capsys)
        assert str(run) in line, (words, line)
        assert all(part in line for part in said), (words, line)
    assert not (tmp_path / "b").exists()  # nothing half-written
    assert not (tmp_path / "m.pt2").exists()


BUNDLES: dict[str, tuple[Any, ...]] = {
    "bundle.json cut": ("bundle.json", cut, "is damaged, cut off"),
    "bundle.json a list": ("bundle.json", lambda p: p.write_text("[]"), "holds a list, not an object"),
    "bundle.json without heads": ("bundle.json", with_record(lambda r: r.pop("heads") and r), "lacks 'heads'"),
    "a head's settings": (
        "bundle.json",
        with_record(lambda r: r["heads"]["segmentation"]["model_config"].update(stride="4")),
        "segmentation: stride '4' must be int",
    ),
    "encoder cut": (WEIGHTS, cut, "is damaged, cut off"),
    "encoder a pointer": (WEIGHTS, lambda p: p.write_bytes(LFS), "is a pointer of git-lfs"),
    "encoder absent": (WEIGHTS, Path.unlink, "no such file"),
    "head empty": ("segmentation.safetensors", lambda p: p.write_bytes(b""), "is empty"),
    "head a web page": ("segmentation.safetensors", lambda p: p.write_bytes(PAGE), "is a web page"),
    "head absent": ("segmentation.safetensors", Path.unlink, "there is no such file"),
    "head of another": (
        "segmentation.safetensors",
        lambda p: save_file({"decoder.queries": torch.ones(2)}, p),
        "does not fit this model: missing decoder.",
    ),
}


@pytest.mark.parametrize("kind", BUNDLES)
def test_damaged_bundles_are_named_file_by_file(
    kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, said = BUNDLES[kind]
    folder = tmp_path / "bundle"
    Bundle.save(folder, {"segmentation": tiny_models()["segmentation"]})
    damage(folder / name)
    film = str(place / "clips" / "a" / "one.mp4")
    line = one_line_of(["predict", "segmentation", film, "--json", "--model", str(folder)], capsys, (2,))
    assert str(folder / name) in line or kind == "encoder absent"
    assert said in line
    if name == "bundle.json":
        assert said in one_line_of(["serve", str(folder), "--port", "0"], capsys)


def test_a_bundle_whose_configuration_is_a_head_s_is_refused(tmp_path: Path) -> None:
    models = tiny_models()
    Bundle.save(tmp_path / "bundle", {"segmentation": models["segmentation"]})
    models["classification"].save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / CONFIG, tmp_path / "bundle" / CONFIG)
    with pytest.raises(ValueError, match=r"config\.json describes an AudioVisualClassifier, not"):
        Bundle.open(tmp_path / "bundle").load_encoder()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (PAGE, "is a web page"),
        (LFS, "a pointer of git-lfs"),
        (b"some text, and more of it", "is damaged, cut off"),
        (pickle.dumps({"state_dict": [1, 2]}, protocol=2), "is damaged, cut off or another kind of file"),
        (b"PK\x03\x04" + bytes(300), "is damaged, cut off"),
    ],
)
@pytest.mark.parametrize("name", ["release.pth", "release.pt", "release.bin"])
def test_weight_files_of_torch_that_are_none(
    name: str, content: bytes, message: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    start = ["--data.source", str(place / "clips")]
    for words in (
        ["inspect", str(path)],
        ["embed", "--from", str(path), "--out", str(tmp_path / "f.npz"), *start],
        ["predict", "embedding", str(place / "clips"), "--json", "--model", str(path)],
        ["train", "localization", "--from", str(path), "--run_dir", str(tmp_path / "t"), *start],
    ):
        line = one_line_of(words, capsys)
        assert str(path) in line
        assert message in line, line
