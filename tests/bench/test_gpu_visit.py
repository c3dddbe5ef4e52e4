"""The visit to a GPU machine: its stages leave one another alone, its tables tell what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from deepavfusion.models import EarlyFusionEncoder

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))
import gpu_stages  # noqa: E402
import gpu_visit  # noqa: E402
import make_docs  # noqa: E402
import resume_matrix  # noqa: E402
import wheels  # noqa: E402

ROWS = "import pathlib, json; pathlib.Path({path!r}).write_text(json.dumps({{'stage': 'fed', 'rows': [{{}}]}}));"


def ended(tmp_path: Path, code: str, seconds: float = 60.0) -> dict:
    """A stage of one line of Python, run and on file."""
    path = tmp_path / "gpu_fed.json"
    words = [sys.executable, "-c", ROWS.format(path=str(path)) + code]
    record = gpu_visit.run_stage("fed", words, path, tmp_path / "visit.log", seconds)
    assert json.loads(path.read_text()) == record
    return record


def test_how_a_stage_ended_is_in_its_file(tmp_path: Path) -> None:
    good = ended(tmp_path, "")
    assert (good["problem"], good["rows"], gpu_visit.good(good)) == ("", [{}], True)
    bad = ended(tmp_path, "raise MemoryError('of the GPU')")
    assert bad["problem"] == "ended with exit code 1: MemoryError: of the GPU"
    assert (bad["rows"], gpu_visit.good(bad)) == ([{}], False)
    killed = ended(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert killed["problem"].startswith("ended with exit code -9")
    nothing = gpu_visit.run_stage("fed", ["false"], tmp_path / "gpu_none.json", tmp_path / "visit.log", 60)
    assert (nothing["rows"], nothing["problem"]) == ([], "ended with exit code 1: it said nothing")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.slow
def test_a_stage_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """Also what ignores SIGTERM, and what is in another process group."""
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    record = ended(tmp_path, code, 5.0)
    assert (record["problem"], record["rows"]) == ("stopped after 5 s", [{}])
    assert not resume_matrix.alive({int((tmp_path / "pid").read_text())})


def test_stages_share_the_time_that_is_left() -> None:
    names = list(gpu_visit.STAGES)
    assert sum(gpu_visit.STAGES.values()) == 720
    assert gpu_visit.limits(names, 720) == 130
    assert gpu_visit.limits(names[-1:], 432.0) == 432
    assert gpu_visit.limits(["fast", "published"], 600) == pytest.approx(400)


def test_a_row_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    stage = gpu_stages.Stage(tmp_path / "gpu_fast.json", 100.0, "cpu")

    def fails() -> dict:
        raise RuntimeError("kernel not found\nmore")

    stage.row({"size": "a"}, fails)
    stage.row({"size": "b"}, lambda: {"seconds": 1})
    stage.row({"size": "c"}, lambda: {"seconds": 1}, needs=1000.0)
    rows = json.loads((tmp_path / "gpu_fast.json").read_text())["rows"]
    assert [row.get("problem") for row in rows] == ["RuntimeError: kernel not found", None, "no time left"]
    record = {"problem": "", "rows": rows}
    assert not gpu_visit.good(record)
    assert gpu_visit.good({"problem": "", "rows": rows[1:]})  # a lack of time is no fault
    assert not gpu_visit.good({"problem": "", "rows": [{"held": False}]})


def test_tables_say_what_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_docs, "DOCS", tmp_path)
    assert make_docs.table("gpu_published").startswith("Not measured yet")
    kind = {"step": "pre-training", "size": "vit_b", "fusion": "dense", "mode": "eager"}
    fits = {"batch_size": 128, "samples_per_second": [3000.0, 1000.0], "peak_gib": [20.0, 60.5], "times_faster": 3.0}
    rows = [{**kind, **fits, "out_of_memory_at": [256]}, {**kind, "size": "vit_l", "problem": "no time left"}]
    record = {"quick": True, "problem": "stopped after 9 s", "device": "a card", "cores": 4, "torch": "2", "rows": rows}
    file = tmp_path / "results" / "gpu_published.json"
    file.parent.mkdir()
    file.write_text(json.dumps(record))
    assert make_docs.table("gpu_published").startswith("Not measured yet")  # a trial is no measurement
    file.write_text(json.dumps({**record, "quick": False}))
    table = make_docs.table("gpu_published")
    assert "| pre-training | vit_b | `dense` | eager | 128 | 3,000 | 1,000 | 3.00 | 20.0 | 60.5 | 256 |" in table
    assert "Not measured (no time left): pre-training vit_l dense eager." in table
    assert "stopped after 9 s" in table
    assert "Measured on: a card, 4 cores; torch 2." in table


def test_checks_that_do_not_hold_are_named() -> None:
    row = {"check": "reference", "case": "dense", "arithmetic": "float32", "gradients": 2e-6, "allowed": [1e-5, 1e-5]}
    rows = [{**row, "outputs": 1e-6, "held": True}, {**row, "case": "token", "outputs": 1e-3, "held": False}]
    table = make_docs.TABLES["gpu_right"]({"rows": rows})
    assert "| reference | float32 | 1 of 2 | 1.0e-03 | 1e-05 | 2.0e-06 | 1e-05 |" in table
    assert "Not held: reference, token, float32." in table


def test_wheels_are_those_that_a_bare_machine_lacks(tmp_path: Path) -> None:
    have = tmp_path / "list.txt"
    have.write_text("Package Version\n------- -------\nnumpy 2.0\nhuggingface-hub 1.0\ntyping_extensions==4\n")
    download, *source, install = wheels.pip_lines(ROOT, have).splitlines()
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert f" av=={pinned['av']} " in download
    assert " docstring-parser==" in download  # of an extra that a requirement asks for
    assert " cffi==" in download  # of a requirement's own
    assert not any(name in download for name in ("torch==", "numpy", "huggingface", "typing"))
    assert source == [f"pip wheel --no-deps -w wheels fast-bss-eval=={pinned['fast_bss_eval']}"]
    assert " av " in install
    assert wheels.lacking(ROOT) == []


def test_mistakes_end_in_one_line(tmp_path: Path) -> None:
    for words, said in ((["--only", "fsat"], "fsat: no such stage; there are right"), (["--wheels=1"], "--wheels")):
        words = [sys.executable, str(SCRIPTS / "gpu_visit.py"), "--out", str(tmp_path), *words]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_ours_and_the_written_out_forms_hold_together() -> None:
    import gpu_right

    for which in ("pre-training", "unmasked encoder"):
        for arithmetic in gpu_right.WRITTEN_OUT_ALLOWED:
            found = gpu_right.written_out("tiny", "dense", which, arithmetic, "cpu")
            assert found["held"], (which, arithmetic, found)
            assert found["gradients"] > 0


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_quick_visit_on_a_cpu(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPTS / "gpu_visit.py"), "--out", str(tmp_path / "home"), "--quick"]
    done = subprocess.run([*words, "--device", "cpu", "--minutes", "40"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    files = sorted((tmp_path / "home").iterdir())
    names = ["gpu_bandstand.tar", *(f"gpu_{name}.json" for name in gpu_visit.STAGES), "visit.log"]
    assert [file.name for file in files] == sorted(names)
    assert max(file.stat().st_size for file in files) <= 16 * 2**20
    for name in gpu_visit.STAGES:
        record = json.loads((tmp_path / "home" / f"gpu_{name}.json").read_text())
        assert record["problem"] == ""
        assert record["rows"]
    with tarfile.open(tmp_path / "home" / "gpu_bandstand.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    assert EarlyFusionEncoder.from_pretrained(tmp_path / "encoder").config.depth == 4
    assert (tmp_path / "metrics.csv").read_text().count("\n") > 2
