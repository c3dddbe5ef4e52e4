"""One label per clip and several: rows in the official forms, and rows that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deepavfusion.data.sets import ave, folders, kinetics_sounds, music, vggsound, vggsounder
from deepavfusion.data.sets.audioset import read_audioset
from deepavfusion.data.sets.listing import Listing, join_labels, split_labels
from deepavfusion.data.sets.manifest import ManifestConfig, build_manifest
from deepavfusion.data.sets.vocabularies import SHIPPED, instrument_class, known, shipped_classes, vocabulary
from tests.data.sets.conftest import Plant, text

SIZES = {
    "audioset": 527,
    "audioset_mids": 527,
    "ave": 28,
    "avss": 71,
    "bandstand": 24,
    "kinetics_sounds": 31,
    "music": 11,
    "music21": 21,
    "vgg_instruments": 37,
    "vggsound": 309,
    "vggsound_music": 49,
}


def test_shipped_lists() -> None:
    assert {name: len(shipped_classes(name)) for name in SHIPPED} == SIZES
    for name in SHIPPED:
        classes = shipped_classes(name)
        assert len(set(classes)) == len(classes)
        if name not in ("audioset", "audioset_mids", "avss", "bandstand"):
            assert list(classes) == sorted(classes), name
    assert shipped_classes("audioset")[0] == "Speech"
    assert shipped_classes("avss")[0] == "background"
    assert set(shipped_classes("vggsound_music")) < set(shipped_classes("vggsound"))
    assert set(shipped_classes("vgg_instruments")) < set(shipped_classes("vggsound"))
    assert set(shipped_classes("music")) < set(shipped_classes("music21")) | {"tuba"}
    with pytest.raises(ValueError, match="no list of classes 'esc50'"):
        shipped_classes("esc50")


def test_vocabulary_order() -> None:
    assert vocabulary(["b", "a", "b", "10"]) == ("10", "a", "b")
    assert vocabulary(["10", "9", "0"]) == ("0", "9", "10")


def test_unknown_label_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"here: 'people march' is not among the 309 classes.*'people marching'"):
        known("people march", shipped_classes("vggsound"), "here")


def test_labels_of_one_cell() -> None:
    assert split_labels(join_labels(("bird chirping, tweeting", "hail"))) == ("bird chirping, tweeting", "hail")
    assert join_labels(()) is None
    assert split_labels(None) == ()
    with pytest.raises(ValueError, match="must not be empty or hold"):
        join_labels(("a|b",))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("violin", "playing violin, fiddle"),
        ("violin,_fiddle", "playing violin, fiddle"),
        ("steel_guitar,_slide_guitar", "playing steel guitar, slide guitar"),
        ("steel_guitar", "playing steel guitar, slide guitar"),
        ("xylophone", "playing marimba, xylophone"),
        ("tympani", "playing tympani"),
        ("table_tennis", "playing table tennis"),
    ],
)
def test_short_names_of_instruments(name: str, label: str) -> None:
    assert instrument_class(name, "here") == label


def test_lists_of_instruments_do_not_quote_commas(tmp_path: Path) -> None:
    path = text(
        tmp_path / "train.txt",
        "--iY3Bf4hDg_000030,violin,_fiddle\n--G-wKyj6JQ_000030,harpsichord\n-0iEMffOYwo_000005,oboe\n",
    )
    listing = vggsound.read_vggsound_music(path)
    assert [clip.label for clip in listing.clips] == ["playing violin, fiddle", "playing harpsichord", "playing oboe"]
    assert [clip.label for clip in vggsound.read_vgg_instruments(path).clips] == [
        "playing violin, fiddle",
        "playing harpsichord",
    ]  # no oboe in these
    full = text(tmp_path / "vggsound.csv", "a0000000000,5,playing oboe,test\nb0000000000,5,people marching,test\n")
    assert [clip.id for clip in vggsound.read_vggsound_music(full).clips] == ["a0000000000_000005"]


BAD_ROWS: list[tuple[Callable[[str], Listing], str, str]] = [
    (
        vggsound.read_vggsound,
        "a,1,people marching,test\nb,1,bird chirping, tweeting,test\n",
        "line 2: expected id,start",
    ),
    (vggsound.read_vggsound, "a,1,people marching,test\n\nb,x,people marching,test\n", "line 3: 'x' must be a number"),
    (
        vggsound.read_vggsound,
        "a,1,people marching,test\nb,-1,people marching,test\n",
        "line 2: '-1' must be a number of",
    ),
    (vggsound.read_vggsound, "a,1,people dancing,test\n", "line 1: 'people dancing' is not among the 309"),
    (vggsound.read_vggsound, "a,1,hail,test\na,1,hail,train\n", "line 2: a_000001 is already listed in .*line 1"),
    (vggsound.read_vggsound, "a.mp4,hail\nb.mp4,bird chirping, tweeting\n", "line 2: expected file,label, found 3"),
    (vggsound.read_vggsound, "hail,1050,nature\n", "lists classes, not clips"),
    (vggsound.read_vggsound, "", "holds no rows"),
    (vggsound.read_vggsound, 'a,1,"hail,test\n', "not a csv file"),
    (vggsound.read_vggsound_music, "a,kazoo\n", "line 1: 'kazoo' is not"),
    (read_audioset, "# c\na, 0.0, 10.0, /m/09x0r,/m/04rlf\n", "line 2: .*found 5 cells"),
    (read_audioset, '# c\na, 0.0, 10.0, "/m/nothing"\n', "line 2: '/m/nothing' is not among the 527"),
    (ave.read_ave, "Bark&a&good&0&10\nBark&b&good&0\n", "line 2: expected class&id&quality"),
    (ave.read_ave, "Barking&a&good&0&10\n", "line 1: 'Barking' is not among the 28 .*'Bark'"),
    (ave.read_ave, "Bark&a&good&8&2\n", "line 1: the event ends before it starts"),
    (kinetics_sounds.read_kinetics_sounds, "test/a.mp4,3\ntest/b.mp4,bowling\n", "line 2: expected path,class number"),
    (music.read_music, '{"videos": {"flute kazoo": ["a"]}}', "'flute kazoo': 'kazoo' is not among the 11"),
    (music.read_music, '{"videos": {"flute": ["a"], "tuba": ["a"]}}', "'tuba': a is already listed in .*'flute'"),
    (music.read_music, '{"videos": {"flute": "a"}}', "'flute': must hold a list"),
    (music.read_music, '{"flute": ["a"]}', "must hold"),
    (music.read_music, '{"videos":\n {"flute": [}', "line 2: not JSON"),
    (folders.read_ids, "a\nb\na.mp4\n", "line 3: a is already listed in .*line 1"),
]


@pytest.mark.parametrize(("read", "content", "message"), BAD_ROWS)
def test_rows_that_do_not_fit(read: Callable[[str], Listing], content: str, message: str, tmp_path: Path) -> None:
    path = text(tmp_path / "list.csv", content)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert path in str(error.value)


HEADER = "video_id,label,modality,background_music,static_image,voice_over\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a_000001,hail,AV,False,False,False\na_000001,hail,A,False,False,False\n", "line 3: a_000001 has .* twice"),
        ("a_000001,hail,X,False,False,False\n", "line 2: modality 'X'"),
        ("a_000001,hail,A,no,False,False\n", "line 2: background_music 'no'"),
        ("a_000001,hail,A,False,False,False\na_000001,cow lowing,A,False,True,False\n", "line 3: .* differ"),
        ("a_000001,hail,A,False\n", "line 2: has 4 cells, the header 6"),
    ],
)
def test_vggsounder_rows_that_do_not_fit(rows: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        vggsounder.read_annotations(text(tmp_path / "vggsounder.csv", HEADER + rows))
    with pytest.raises(ValueError, match="line 1: no column modality"):
        vggsounder.read_annotations(text(tmp_path / "other.csv", "video_id,label\na,hail\n"))


def test_vggsounder_keeps_modalities_apart(tmp_path: Path) -> None:
    rows = (
        "a_000001,hail,A,False,True,False\nb_000002,hail,V,False,False,False\na_000001,cow lowing,AV,False,True,False\n"
    )
    first, second = vggsounder.read_annotations(text(tmp_path / "vggsounder.csv", HEADER + rows))
    assert first.labels == ("cow lowing", "hail")
    assert first.modalities == ("AV", "A")
    assert first.labels_of("A") == ("hail",)
    assert first.labels_of("V", "AV") == ("cow lowing",)
    assert first.static_image
    assert not second.static_image


def test_ave_events_and_their_videos(tmp_path: Path, plant: Plant) -> None:
    path = text(
        tmp_path / "Annotations.txt",
        "Category&VideoID&Quality&StartTime&EndTime\nMale speech, man speaking&RUhOCu3LNXM&good&3&9\n"
        "Bark&VWi2ENBuTbw&good&0&0\nBark&RUhOCu3LNXM&good&0&2\nCat&gone0000000&bad&0&10\n",
    )
    events = ave.read_events(path)
    assert [(event.clip_id, event.start_seconds, event.end_seconds) for event in events][:2] == [
        ("RUhOCu3LNXM", 3, 9),
        ("VWi2ENBuTbw", 0, 0),
    ]
    out = str(tmp_path / "ave.csv")
    report = build_manifest(
        ManifestConfig("ave", str(plant("RUhOCu3LNXM.mp4", "VWi2ENBuTbw.mp4")), out, path, num_workers=0)
    )
    assert (report.num_official, report.num_present, report.missing) == (3, 2, ("gone0000000",))
    assert 'RUhOCu3LNXM,clips/RUhOCu3LNXM.mp4,"Bark|Male speech, man speaking"' in Path(out).read_text()


def test_music_duets_and_kinetics(tmp_path: Path, plant: Plant) -> None:
    duets = text(tmp_path / "duet.json", '{"version": 1.0, "videos": {"flute violin": ["8DHG_hVSw1o"], "tuba": []}}')
    clips = plant("flute_violin/8DHG_hVSw1o.mp4", "playing_flute/G9EvS_LmbU8_000000_000010.mp4")
    report = build_manifest(
        ManifestConfig("music", str(clips), str(tmp_path / "duet.csv"), duets, num_workers=0, check="none")
    )
    assert (report.num_present, report.num_classes) == (1, 11)
    official = text(
        tmp_path / "kinetics.csv",
        "label,youtube_id,time_start,time_end,split\nbowling,G9EvS_LmbU8,0,10,test\nyoga,other000000,0,10,test\n",
    )
    listing = kinetics_sounds.read_kinetics_sounds(official)
    assert [(clip.id, clip.label, clip.split) for clip in listing.clips] == [("G9EvS_LmbU8_000000", "bowling", "test")]
    numbered = text(tmp_path / "numbered.csv", "test/G9EvS_LmbU8_000000_000010.mp4,16\ntest/gone.mp4,2\n")
    report = build_manifest(
        ManifestConfig("kinetics_sounds", str(clips), str(tmp_path / "k.csv"), numbered, num_workers=0, check="none")
    )
    assert (report.num_present, report.missing, report.num_classes) == (1, ("gone",), 2)


def test_lists_of_test_clips(tmp_path: Path) -> None:
    plain = text(tmp_path / "vggss_test.csv", "a_000001\r\nb_000002\r\n")
    paired = text(
        tmp_path / "pairs.csv", "source_1,source_2,class_1,class_2,sep_type\na_000001,c_000003,flute,oboe,Easy\n"
    )
    boxed = text(tmp_path / "vggss.json", '[{"file": "d_000004_000014.mp4"}]')
    assert folders.read_id_set(plain) == {"a_000001", "b_000002"}
    assert folders.read_id_set(paired) == {"a_000001", "c_000003"}
    assert folders.read_id_set(boxed) == {"d_000004"}
    full = text(tmp_path / "vggsound.csv", "---g-f_I2yQ,1,people marching,test\n")
    assert folders.read_id_set(full) == {"---g-f_I2yQ_000001"}
    segments = text(tmp_path / "eval_segments.csv", '# YTID\n-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"\n')
    assert folders.read_id_set(segments) == {"-0RWZT-miFs_000420"}
    assert folders.read_id_set(text(tmp_path / "flickr_test.csv", "10000130166,202\n")) == {"10000130166"}
    assert folders.read_id_set(text(tmp_path / "ids.txt", "abcd_123456_000030\n")) == {"abcd_123456_000030"}


def test_labels_of_a_csv_of_ones_own(tmp_path: Path) -> None:
    listing = folders.read_csv(text(tmp_path / "own.csv", "file,label,split\na.mp4,dog|cow,train\nb.mp4,,test\n"))
    assert [clip.labels for clip in listing.clips] == [("dog", "cow"), ()]
    assert listing.classes == ("cow", "dog")
