"""Data sets of the Hub's form, as local Parquet files and folders of clips that are really decoded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deepavfusion.cli import main
from deepavfusion.data.audit import AuditConfig, audit
from deepavfusion.data.clip import Clip, ClipError
from deepavfusion.data.clips import find_clips, quarantined, read_manifest, write_manifest
from deepavfusion.data.dataset import Batch, ClipSet, ClipStream
from deepavfusion.data.loading import StepSampler, evaluation_loader, training_loader
from deepavfusion.data.media import MediaFile
from deepavfusion.data.opening import open_clip
from deepavfusion.data.rows import RowPlace
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.data.stored_media import media_digest
from deepavfusion.data.views import CentreView, TrainingView
from deepavfusion.tasks.pretraining import MaskedPretraining
from deepavfusion.training.loop import fit
from tests.data.hub_server import COMMIT, REPO, hub_of
from tests.data.test_audit import write
from tests.tasks.test_pretraining import make, quiet

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'deepavfusion[hub]'")
datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'deepavfusion[hub]'")
parquet = pytest.importorskip("pyarrow.parquet")

SHAPES = ["disc", "square", "triangle", "ring"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six clips of four classes."""
    return write_sample_clips(tmp_path_factory.mktemp("files"), 6, duration_seconds=1.2, size=64)


def media(path: Path) -> dict[str, object]:
    return {"bytes": path.read_bytes(), "path": path.name}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Path:
    """A data set in Parquet: five rows to train on, two to a row group, and one to test on."""
    folder = tmp_path_factory.mktemp("set")
    columns = {
        "clip": datasets.Video(decode=False),
        "class": datasets.ClassLabel(names=SHAPES),
        "youtube": datasets.Value("string"),
    }
    rows = [{"clip": media(f), "class": i % 4, "youtube": f"id-{i}"} for i, f in enumerate(files)]
    for split, part in (("train", rows[:5]), ("test", rows[5:])):
        table = datasets.Dataset.from_list(part, features=datasets.Features(columns))
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet", batch_size=2)
    assert parquet.ParquetFile(folder / "train-00000-of-00001.parquet").num_row_groups == 3
    return folder


def table_of(types: dict[str, object], rows: list[dict]) -> pyarrow.Table:
    """With the types in its schema, as `datasets` writes it, which needs torchcodec for sound."""
    return pyarrow.Table.from_pylist(rows, schema=datasets.Features(types).arrow_schema)


def write_rows(path: Path, types: dict[str, object], rows: list[dict]) -> str:
    parquet.write_table(table_of(types, rows), path)
    return f"hf:{path}"


def same(a: Batch, b: Batch) -> None:
    assert a.tensors().keys() == b.tensors().keys()
    for name, tensor in a.tensors().items():
        assert torch.equal(tensor, b.tensors()[name]), name


def test_rows_are_clips_with_splits_labels_and_ids(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = find_clips(f"hf:{place}")
    assert [clip.id for clip in clips] == [*(f"train/{row}" for row in range(5)), "test/0"]
    assert [clip.label for clip in clips] == [SHAPES[i % 4] for i in range(6)]
    assert [clip.split for clip in clips] == ["train"] * 5 + ["test"]
    assert clips[3].path == f"{place}/train-00000-of-00001.parquet#3:video=clip"
    assert {clip.storage for clip in clips} == {"row"}
    assert find_clips(f"hf:{place}:test") == clips[5:]
    assert quarantined(f"hf:{place}") == []
    named = find_clips(f"hf:{place}:train:id=youtube,label=none")
    assert [(clip.id, clip.label) for clip in named] == [(f"id-{row}", None) for row in range(5)]
    assert [clip.id for clip in find_clips(f"hf:{place}:test:id=clip")] == ["0005"]  # the file's name
    monkeypatch.chdir(place)
    assert find_clips("hf:./train-00000-of-00001.parquet") == clips[:5]


def test_a_folder_data_set_gives_its_files(tmp_path: Path, files: list[Path]) -> None:
    for split, part in (("train", files[:4]), ("test", files[4:])):
        for file in part:
            target = tmp_path / split / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    clips = find_clips(f"hf:{tmp_path}")
    assert {(clip.id.split("/")[0], clip.label, clip.split) for clip in clips if clip.split == "test"} == {
        ("test", "disc", "test"), ("test", "square", "test")
    }  # fmt: skip
    assert sorted(clip.path for clip in clips) == sorted(map(str, tmp_path.rglob("*.mp4")))
    assert {clip.storage for clip in clips} == {"file"}
    with open_clip(clips[0]) as clip:
        assert clip.info.has_picture
        assert clip.info.has_sound


def as_files(clips: Sequence[Clip], files: list[Path]) -> list[Clip]:
    return [Clip(clip.id, str(file), clip.label, clip.split) for clip, file in zip(clips, files, strict=True)]


@pytest.mark.parametrize("workers", [0, 2])
def test_views_are_those_of_the_files_bit_for_bit(place: Path, files: list[Path], workers: int) -> None:
    clips = find_clips(f"hf:{place}")
    view = CentreView((32, 32), 1.0)
    with (
        evaluation_loader(ClipSet(clips, view), 4, workers, CPU) as rows,
        evaluation_loader(ClipSet(as_files(clips, files), view), 4, 0, CPU) as whole,
    ):
        batches = list(zip(rows, whole, strict=True))
    assert [len(a) for a, _ in batches] == [4, 2]
    for a, b in batches:
        assert a.failures == []
        assert a.image_present.all()
        assert a.audio_present.all()
        same(a, b)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_continues_where_it_stopped_and_is_shared_out(place: Path, workers: int) -> None:
    """Steps 0 to 4 of two processes, step 2 on of one: the same samples, through epochs that start anew."""
    stream = ClipStream(find_clips(f"hf:{place}:train"), TrainingView((32, 32), 0.5), 7, num_patches=(4, 4))
    with training_loader(stream, StepSampler(4, 1, 1, 0, 0, 5), 0, CPU) as whole:
        steps = list(whole)
    with training_loader(stream, StepSampler(4, 1, 1, 0, 2, 5), workers, CPU) as rest:
        continued = list(rest)
    assert [batch.sample_numbers for batch in continued] == [batch.sample_numbers for batch in steps[2:]]
    for a, b in zip(continued, steps[2:], strict=True):
        same(a, b)
    for rank in range(2):
        with training_loader(stream, StepSampler(4, 1, 2, rank, 0, 5), workers, CPU) as share:
            for part, step in zip(share, steps, strict=True):
                assert torch.equal(part.image, step.image[2 * rank : 2 * rank + 2])
                assert torch.equal(part.waveform, step.waveform[2 * rank : 2 * rank + 2])


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> str:
    """A good row, one without sound, a broken one, an empty one, and the first once more."""
    folder = tmp_path_factory.mktemp("spoiled")
    write(folder / "mute.mp4", "no audio")
    values = [
        media(files[0]),
        media(folder / "mute.mp4"),
        {"bytes": b"\0" * 300, "path": "x.mp4"},
        None,
        media(files[0]),
    ]
    types = {"video": datasets.Video(decode=False)}
    return write_rows(folder / "rows.parquet", types, [{"video": value} for value in values])


def test_a_broken_row_is_named_by_split_and_number(spoiled: str) -> None:
    batch = next(iter(evaluation_loader(ClipSet(find_clips(spoiled), CentreView((32, 32), 1.0)), 5, 0, CPU)))
    assert batch.audio_present.tolist() == [True, False, False, False, True]
    assert batch.image_present.tolist() == [True, True, False, False, True]
    assert [failure.clip_id for failure in batch.failures] == ["train/2", "train/3"]
    file = spoiled.removeprefix("hf:")
    assert batch.failures[0].cause.startswith(f"{file}#2:video=video: cannot be opened: ")
    assert batch.failures[1].cause == f"{file}#3:video=video: the row has no video"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_audit_reads_rows_and_a_second_one_nothing(spoiled: str, tmp_path: Path, workers: int) -> None:
    config = AuditConfig(spoiled, str(tmp_path / "clips.csv"), num_workers=workers)
    summary = audit(config)
    assert summary.num_looked_at == 5
    found = read_manifest(config.out)
    assert [(clip.id, clip.verdict) for clip in found] == [
        ("train/0", "ok"), *((f"train/{row}", "quarantined") for row in range(1, 5))
    ]  # fmt: skip
    reasons = [clip.reason or "" for clip in found]
    assert reasons[1] == "no audio"
    assert reasons[2].startswith("unreadable: cannot be opened")
    assert reasons[3] == "unreadable: the row has no video"
    assert reasons[4] == "duplicate of train/0"
    assert (found[0].width, found[0].duration_seconds, found[0].sample_rate) == (64, 1.2, 16000)
    assert [clip.path for clip in find_clips(config.out)] == [f"{spoiled.removeprefix('hf:')}#0:video=video"]
    assert audit(config).num_looked_at == 0


def test_an_audit_takes_labels_of_rows_by_their_ids(place: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\nid-3,cello\nid-0,flute\n")
    config = AuditConfig(f"hf:{place}:train:id=youtube", str(tmp_path / "c.csv"), labels=str(tmp_path / "labels.csv"))
    audit(config)
    assert [clip.label for clip in read_manifest(config.out)] == ["flute", None, None, "cello", None]


def test_shards_of_rows_hold_what_shards_of_files_hold(place: Path, files: list[Path], tmp_path: Path) -> None:
    clips = find_clips(f"hf:{place}")
    write_manifest(str(tmp_path / "files.csv"), as_files(clips, files))
    for name, source in (("rows", f"hf:{place}"), ("files", str(tmp_path / "files.csv"))):
        summary = write_shards(ShardConfig(source, str(tmp_path / name), num_workers=0, short_side=32))
        assert (summary.num_clips, summary.failures) == (6, [])
    assert (tmp_path / "rows/00000.tar").read_bytes() == (tmp_path / "files/00000.tar").read_bytes()


def test_sound_and_picture_of_two_columns(tmp_path: Path, files: list[Path]) -> None:
    import soundfile

    tone = (np.sin(np.arange(16000) / 20) * 0.5).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", tone, 16000, subtype="FLOAT")
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "red.png")
    types = {
        "film": datasets.Video(decode=False),
        "photo": datasets.Image(decode=False),
        "sound": datasets.Audio(decode=False),
    }
    row = {"film": media(files[1]), "photo": media(tmp_path / "red.png"), "sound": media(tmp_path / "tone.wav")}
    source = write_rows(tmp_path / "rows.parquet", types, [row, row | {"sound": None}])

    both, silent = find_clips(source)  # the photo is taken for a thumbnail
    with open_clip(both) as clip, MediaFile(files[1]) as film:
        assert np.array_equal(clip.frame(0.5), film.frame(0.5))
        assert np.array_equal(clip.sound(0.25, 0.5), tone[4000:12000])
        assert (clip.info.width, clip.info.sample_rate, clip.info.duration_seconds) == (64, 16000, 1.2)
    with open_clip(silent) as clip:
        assert (clip.info.has_picture, clip.info.has_sound) == (True, False)
    with open_clip(find_clips(f"{source}:image=photo,audio=sound")[0]) as clip:
        assert clip.frame(0.9).shape == (30, 40, 3)
        assert (clip.frame(0.9) == (200, 10, 10)).all()
        assert clip.info.duration_seconds == 1.0
    with open_clip(find_clips(f"{source}:video=film")[1]) as clip:
        assert clip.info.has_sound  # its own


def test_plain_bytes_and_several_labels(tmp_path: Path, files: list[Path]) -> None:
    types = {"data": datasets.Value("binary"), "label": datasets.List(datasets.ClassLabel(names=SHAPES))}
    rows = [{"data": file.read_bytes(), "label": [i, 3][: i + 1]} for i, file in enumerate(files[:2])]
    clips = find_clips(write_rows(tmp_path / "rows.parquet", types, rows))
    assert [clip.label for clip in clips] == ["disc", "square|ring"]
    with open_clip(clips[1]) as clip, MediaFile(files[1]) as file:
        assert np.array_equal(clip.frame(0.5), file.frame(0.5))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (":val", "no split 'val'; it has train, test"),
        (":vido=clip", "unknown key 'vido'; did you mean video?"),
        (
            ":video=film",
            "no column 'film' for video; its columns are clip (Video), class (ClassLabel), youtube (string)",
        ),
        (":video=youtube", "video=youtube is string, not media or bytes"),
        (":label=name", "no column 'name' for label; its columns are clip (Video)"),
        (":id=class", "id '0' occurs in "),
        (":revision=main", "a local data set has no revision"),
        (":config=small", "'small' not found"),
        ("/nothing", "no such folder or Parquet file"),
    ],
)
def test_mistakes_are_told_in_one_line(place: Path, end: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^hf:") as error:
        find_clips(f"hf:{place}{end}")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_told_is_asked_for(tmp_path: Path, files: list[Path]) -> None:
    video, label = datasets.Video(decode=False), datasets.ClassLabel(names=SHAPES)
    types = {"a": video, "b": video, "c": label, "d": label}
    source = write_rows(tmp_path / "two.parquet", types, [{"a": media(files[0]), "b": media(files[1]), "c": 0, "d": 1}])
    with pytest.raises(ValueError, match=r"a and b could each be the video; name one, as in hf:.*:video=a"):
        find_clips(source)
    with pytest.raises(ValueError, match=r"c and d could each be the label; name one \(label=c\), or label=none"):
        find_clips(f"{source}:video=b")
    assert find_clips(f"{source}:video=b,label=d")[0].label == "square"
    bare = write_rows(tmp_path / "bare.parquet", {"text": datasets.Value("string")}, [{"text": "x"}])
    with pytest.raises(ValueError, match=r"no column of video, audio, image or bytes; its columns are text \(string\)"):
        find_clips(bare)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "two.parquet").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"^hf:.*cut\.parquet: "):
        find_clips(f"hf:{tmp_path}/cut.parquet")


def test_what_is_stored_otherwise_is_refused(tmp_path: Path, files: list[Path]) -> None:
    for name in ("arrow", "zip"):
        (tmp_path / name).mkdir()
    table = table_of({"video": datasets.Video(decode=False)}, [{"video": media(files[0])}])
    with pyarrow.ipc.new_stream(tmp_path / "arrow/rows.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=r"^hf:.*arrow: is neither Parquet nor a folder of files, .*to_parquet"):
        find_clips(f"hf:{tmp_path}/arrow")
    with ZipFile(tmp_path / "zip/clips.zip", "w") as archive:
        archive.write(files[0], "disc/a.mp4")
    with pytest.raises(ValueError, match=r"^hf:.*zip: is packed in archives \(clips\.zip\)"):
        find_clips(f"hf:{tmp_path}/zip")


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Path:
    """Two tar files as WebDataset writes them: the last sample has a class and no video."""
    folder = tmp_path_factory.mktemp("tars")
    for number, part in enumerate((files[:2], files[2:4])):
        with tarfile.open(folder / f"train-{number}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for file in part:
                record = json.dumps({"youtube": f"id-{file.stem}", "tags": file.parent.name})
                for name, data in (("mp4", file.read_bytes()), ("cls", b"3\n"), ("json", record.encode())):
                    if (file, name) != (files[3], "mp4"):
                        member = tarfile.TarInfo(f"clips/{file.stem}.{name}")
                        member.size = len(data)
                        archive.addfile(member, BytesIO(data))
    return folder


def test_samples_of_tar_files_are_clips(tars: Path, files: list[Path]) -> None:
    clips = find_clips(f"hf:{tars}")
    assert [(clip.id, clip.label, clip.split, clip.storage) for clip in clips] == [
        (f"train/{row}", "3", "train", "row") for row in range(4)
    ]
    for clip, path in zip(clips[:3], files, strict=False):
        with open_clip(clip) as row, MediaFile(path) as file:
            assert np.array_equal(row.frame(0.6), file.frame(0.6))
            assert np.array_equal(row.sound(0.1, 0.5), file.sound(0.1, 0.5))
        assert media_digest(clip.path) == media_digest(str(path))
    with (
        pytest.raises(ClipError, match=r"clip train/3: .*train-1\.tar#1:video=0\+0: the row has no video"),
        open_clip(clips[3]),
    ):
        pass
    named = find_clips(f"hf:{tars}:train:label=json.tags,id=json.youtube")
    assert [(clip.id, clip.label) for clip in named] == [(f"id-{f.stem}", f.parent.name) for f in files[:4]]
    assert [clip.id for clip in find_clips(f"hf:{tars}:train:id=__key__,label=none")] == [f.stem for f in files[:4]]


def test_a_tar_file_that_ends_too_early_is_named(tars: Path, tmp_path: Path) -> None:
    clip = find_clips(f"hf:{tars}")[1]
    data = (tars / "train-0.tar").read_bytes()
    short = RowPlace(str(tmp_path / "train-0.tar"), 1, RowPlace.of(clip.path).columns)
    (tmp_path / "train-0.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(ClipError, match=r"the file ends before this row"), open_clip(Clip("a", short.path)):
        pass


@pytest.mark.parametrize(("source", "said"), [("hf:name", "expected hf:OWNER/NAME"), ("hf:a b/c", "expected hf:OWNER")])
def test_a_name_of_another_form_is_refused(source: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_clips(source)


def test_the_missing_extra_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert main(["audit", f"hf:{place}", "--out", "x.csv"]) == 1
    assert f"hf:{place}: needs the extra: pip install 'deepavfusion[hub]'" in capsys.readouterr().err


def test_rows_of_a_file_that_was_written_anew_are_not_taken_for_the_old(tmp_path: Path, files: list[Path]) -> None:
    types = {"video": datasets.Video(decode=False)}
    source = write_rows(tmp_path / "rows.parquet", types, [{"video": media(files[0])}, {"video": media(files[1])}])
    clips = find_clips(source)
    for clip in reversed(clips):  # a pass starts anew
        with open_clip(clip):
            pass
    write_rows(tmp_path / "other.parquet", types, [{"video": media(files[2])}])
    os.replace(tmp_path / "other.parquet", tmp_path / "rows.parquet")
    with open_clip(clips[0]) as clip, MediaFile(files[2]) as file:
        assert np.array_equal(clip.frame(0.0), file.frame(0.0))
    with pytest.raises(ClipError, match=r"clip train/1: .*it has 1 rows: the file has changed"), open_clip(clips[1]):
        pass


def test_manifest_of_an_official_list(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "list.csv").write_text("file,label\nid-1,square\nid-9,disc\nid-4,disc\n")
    words = ["manifest", "csv", "--annotations", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out.csv")]
    assert main([*words, "--num_workers", "0", "--clips", f"hf:{place}:train:id=youtube"]) == 0
    assert "2 of 3 official clips present" in capsys.readouterr().out
    clips = read_manifest(str(tmp_path / "out.csv"))
    assert [(clip.id, clip.path.rpartition("/")[2], clip.width) for clip in clips] == [
        ("id-1", "train-00000-of-00001.parquet#1:video=clip", 64),
        ("id-4", "train-00000-of-00001.parquet#4:video=clip", 64),
    ]
    assert main([*words, "--clips", f"hf:{place}"]) == 1
    assert "name the column that has the listed names, id=COLUMN" in capsys.readouterr().err
    words = ["manifest", "folders", "--out", str(tmp_path / "own.csv"), "--num_workers", "0", "--clips"]
    assert main([*words, f"hf:{place}"]) == 0
    assert [clip.label for clip in read_manifest(str(tmp_path / "own.csv"))] == [SHAPES[i % 4] for i in range(6)]
    assert (tmp_path / "own.classes.txt").read_text().split() == sorted(SHAPES)
    assert main([*words, f"hf:{place}:label=none"]) == 1
    assert "6 clips have no label, such as train/0; name its column, label=COLUMN" in capsys.readouterr().err


def test_names_of_columns_are_kept_whatever_they_hold() -> None:
    row = RowPlace("/a/b.parquet", 12, {"video": "a,b=c:d#1", "audio": "ü .x"})
    assert RowPlace.of(row.path) == row
    assert Clip("a", row.path).storage == "row"


def audited(folder: Path, tmp_path: Path) -> tuple[Sequence[Clip], list[str]]:
    """The clips of a folder as a data set of a Hub, audited, and what was asked of the Hub."""
    with hub_of(folder) as (address, asked):
        here = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "DEEPAVFUSION_CACHE": str(tmp_path / "cache")}
        out = str(tmp_path / "clips.csv")
        command = [sys.executable, "-m", "deepavfusion", "audit", f"hf:{REPO}", "--out", out, "--num_workers", "2"]
        subprocess.run(command, check=True, timeout=300, env=os.environ | here | {"NO_PROXY": "127.0.0.1"})
    return read_manifest(out), asked


@pytest.mark.slow  # processes of their own, for the Hub's address is read when the libraries are imported
def test_files_of_the_hub_are_fetched_once_and_named_with_their_commit(
    place: Path, files: list[Path], tmp_path: Path
) -> None:
    clips, asked = audited(place, tmp_path)
    assert [clip.verdict for clip in clips] == ["ok"] * 6
    train = place / "train-00000-of-00001.parquet"
    assert clips[0].path == f"hf://datasets/{REPO}@{COMMIT}/{train.name}#0:video=clip"
    assert [clip.digest for clip in clips] == [media_digest(str(file)) for file in files]
    assert asked.count(f"{train.name} 0-{train.stat().st_size - 1}") == 1  # the rest was its end, to list its rows
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.slow
def test_a_folder_of_the_hub_is_listed_without_fetching_it(files: list[Path], tmp_path: Path) -> None:
    for file in files:
        target = tmp_path / "set/train" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    clips, asked = audited(tmp_path / "set", tmp_path)
    assert sorted(clip.path for clip in clips) == sorted(
        f"hf://datasets/{REPO}@{COMMIT}/train/{file.parent.name}/{file.name}" for file in files
    )
    assert [(clip.label, clip.verdict) for clip in clips] == [(clip.path.split("/")[-2], "ok") for clip in clips]
    assert len(asked) == len(files)


@pytest.mark.slow
def test_a_run_on_rows_continues_bit_by_bit_and_learns_what_one_on_files_learns(
    place: Path, files: list[Path], tmp_path: Path
) -> None:
    write_manifest(str(tmp_path / "files.csv"), as_files(find_clips(f"hf:{place}:train"), files[:5]))
    for name, source in (("files", tmp_path / "files.csv"), ("rows", f"hf:{place}:train")):
        whole = make(source, tmp_path / name)  # type: ignore[arg-type]
        assert fit(MaskedPretraining(whole), whole, quiet()).status == "finished"
    parts = make(f"hf:{place}:train", tmp_path / "parts", workers=2)  # type: ignore[arg-type]
    task = MaskedPretraining(parts)
    counts, calls = task.counts, []

    def stop_in_step_three(batch: Batch) -> dict[str, int]:
        calls.append(batch)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return counts(batch)

    task.counts = stop_in_step_three  # type: ignore[method-assign, assignment]
    assert fit(task, parts, quiet()).status == "preempted"
    again = replace(parts, data=replace(parts.data, num_workers=0))
    assert fit(MaskedPretraining(again), again, quiet()).status == "finished"
    models = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("files", "rows", "parts")]
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name
        assert torch.equal(value, models[2][name]), name
