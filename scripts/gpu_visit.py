"""All GPU measurements of the docs in one command, within a few minutes and without network.

    python scripts/gpu_visit.py --out DIR [--minutes 12] [--only fast,published] [--quick] [--digits FOLDER]
    python scripts/gpu_visit.py --wheels [--have FILE]

Runs from a checkout and downloads nothing. The measurements (stages) run in the order of their importance, each in a
process of its own with a time limit, so that one that fails, hangs or runs out of memory does not harm the others. Each
writes a file gpu_STAGE.json to DIR, which is complete at any moment: the rows measured so far, how the stage ended, and
the reason if it failed. Time that a stage does not need goes to those after it. DIR also gets visit.log, the output of
the stages, and gpu_bandstand.tar, the trained encoder and its curves: at most eight files, none above 16 MiB. Copied to
docs/results they fill the tables of the docs (scripts/make_docs.py).

`--quick` runs everything once at a tiny size, on any device, to test it. `--wheels` prints how to fetch the packages
that the machine lacks: run it there, or here with `--have` and its `pip list`.

Exits with 1 if a stage failed or a check does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gpu_tables import TABLES
from wheels import lacking, pip_lines

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"right": 130, "fast": 200, "published": 100, "fed": 60, "estimate": 50, "bandstand": 180}
"""Shares of the time by stage; seconds of a visit of 12 minutes."""
GRACE_SECONDS = 10
"""Between the time a stage plans with and that at which it is stopped."""


class Interrupted(Exception):
    """The visit itself was told to stop."""


def say(line: str) -> None:
    """Show a line at once, also where the output goes to a file."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def limits(stages: list[str], seconds: float) -> float:
    """Seconds of the first of the stages, which share what is left of the time."""
    return seconds * STAGES[stages[0]] / sum(STAGES[name] for name in stages)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a stage and everything it has started, whatever group that is in."""
    from resume_matrix import alive, descendants  # imports torch

    family = descendants(process.pid)  # before its parents go, by whom it is found
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 3
        while (process.poll() is None or alive(family)) and time.monotonic() < deadline:
            time.sleep(0.05)


def run_stage(name: str, words: list[str], path: Path, log: Path, seconds: float) -> dict:
    """Run a stage to its end or its limit, and complete its file with how it ended."""
    path.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *_given("PYTHONPATH")])}
    began, problem = time.monotonic(), ""
    with open(log, "ab") as file:
        file.write(f"\n=== {name}, at most {seconds:.0f} s\n".encode())
        file.flush()
        start = file.tell()
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            if code := process.wait(seconds):
                said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
                problem = f"ended with exit code {code}: {said[-1] if said else 'it said nothing'}"
        except subprocess.TimeoutExpired:
            problem = f"stopped after {seconds:.0f} s"
        except Interrupted:
            problem = "the visit was stopped"
            raise
        finally:
            if problem:
                stop(process)
            record = json.loads(path.read_text()) if path.exists() else {"stage": name, "rows": []}
            record |= {"problem": problem, "seconds": time.monotonic() - began, "limit_seconds": seconds}
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(record, indent=2) + "\n")
            temporary.replace(path)
    return record


def _given(variable: str) -> list[str]:
    return [os.environ[variable]] if variable in os.environ else []


def good(record: dict) -> bool:
    """Whether a stage ended by itself, with every check held; rows for which there was no time are no fault."""
    rows = record["rows"]
    failed = [r for r in rows if r.get("problem", "no time left") != "no time left" or not r.get("held", True)]
    return not record["problem"] and bool(rows) and not failed


def visit(arguments: argparse.Namespace, stages: list[str]) -> int:
    """All stages, one after the other; then their tables."""
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    log, deadline, records = out / "visit.log", time.monotonic() + 60 * arguments.minutes, {}
    log.unlink(missing_ok=True)

    def interrupt(*_: object) -> None:
        raise Interrupted

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    try:
        for i, name in enumerate(stages):
            seconds, path = limits(stages[i:], deadline - time.monotonic()), out / f"gpu_{name}.json"
            say(f"{name}: at most {seconds:.0f} s")
            words = [sys.executable, str(ROOT / "scripts" / "gpu_stages.py"), name, "--json", str(path)]
            words += ["--seconds", f"{max(1.0, seconds - GRACE_SECONDS):.0f}", "--device", arguments.device]
            words += ["--quick"] if arguments.quick else []
            words += ["--digits", str(arguments.digits.absolute())] if arguments.digits else []
            records[name] = run_stage(name, words, path, log, seconds)
    except Interrupted:
        say("the visit was stopped")
    for name, record in records.items():
        say(f"\n## {name}\n\n{TABLES[f'gpu_{name}'](record)}")
    say("\n| stage | seconds | rows | without a number | ended |\n|---|--:|--:|--:|---|")
    for name, record in records.items():
        without = sum("problem" in row for row in record["rows"])
        ended = record["problem"] or ("well" if good(record) else "with faults, see above")
        say(f"| {name} | {record['seconds']:.0f} | {len(record['rows'])} | {without} | {ended} |")
    return 0 if len(records) == len(stages) and all(map(good, records.values())) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=12.0, help="time limit of all stages together")
    parser.add_argument("--only", default="", help=f"stages to run, of {','.join(STAGES)}")
    parser.add_argument("--quick", action="store_true", help="run everything once at a tiny size, to test it")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="by default CUDA, with --quick a CPU if there is none"
    )
    parser.add_argument("--digits", type=Path, help="folder with MNIST's files and fsdd_flac.zip, for bandstand")
    parser.add_argument("--wheels", action="store_true", help="print how to fetch the packages that are missing")
    parser.add_argument("--have", type=Path, help="the other machine's `pip list`, for --wheels")
    arguments = parser.parse_args()
    if arguments.wheels:
        say(pip_lines(ROOT, arguments.have))
        return 0
    stages = [name for name in STAGES if not arguments.only or name in arguments.only.split(",")]
    if unknown := set(filter(None, arguments.only.split(","))) - STAGES.keys():
        parser.error(f"--only {', '.join(sorted(unknown))}: no such stage; there are {', '.join(STAGES)}")
    if arguments.out is None:
        parser.error("--out: name the folder for the results")
    if missing := lacking(ROOT):
        parser.error(f"this Python lacks {', '.join(missing)}: --wheels prints how to fetch them")
    if arguments.device is None:
        import torch

        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
        if arguments.device == "cpu" and not arguments.quick:
            parser.error("torch finds no CUDA device; --quick tries every stage on a CPU")
    return visit(arguments, stages)


if __name__ == "__main__":
    sys.exit(main())
