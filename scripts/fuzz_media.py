"""Read damaged copies of real clips, and report whatever is not one clean error.

    python scripts/fuzz_media.py CLIP_OR_FOLDER ... --out FOLDER [--num 1000] [--seed 0] [--jobs 2]
                                 [--time_limit 10] [--memory_mib 1024] [--max_source_kib 4096] [--only N]

Mutation number N of a seed is always the same: one of the clips, with bits flipped, bytes overwritten, blocks moved,
cut out or repeated, the end cut off, or numbers in the container's header changed; one to three of these. Each is read
through the media reader (properties, frames, sound, key frames) and through the audit's look at a clip, in a process
of its own that may neither take longer than the time limit nor claim more than four times the memory limit.

A finding is: the process dies, hangs, uses more memory than the limit, raises anything but MediaError (or the stated
ValueError for a track that is not there), or returns what the reader's documentation rules out. The damaged files of
findings are kept under OUT/findings; results.jsonl has a line per mutation, and a second run with the same settings
goes on behind the last one. Exits with 1 if there are findings. Needs Linux or macOS (resource limits).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from deepavfusion.data.audit import AuditConfig, inspect_clip
from deepavfusion.data.clips import Clip
from deepavfusion.data.crops import FrameCrop
from deepavfusion.data.media import MediaError, MediaFile
from deepavfusion.data.workers import Casualty, map_isolated

HEADER_BYTES = 4096
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
BOXES = (b"mvhd", b"tkhd", b"mdhd", b"stsd", b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stco", b"elst", b"avc1")
SMALL = FrameCrop(0.1, 0.1, 0.8, 0.7, (32, 40))


@dataclass(frozen=True)
class Outcome:
    """What reading one mutation came to."""

    number: int
    source: str
    changes: str
    verdict: str
    """`read`, `refused` (MediaError), or what is a finding: `crash or hang`, `memory`, `exception`, `wrong result`."""
    detail: str = ""
    seconds: float = 0.0
    peak_mib: int = 0

    @property
    def is_finding(self) -> bool:
        return self.verdict not in ("read", "refused")


def mutate(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """A damaged copy of a file's content, and how it was damaged."""
    data, names = bytearray(content), []
    for _ in range(int(rng.integers(1, 4))):
        change = (flip, overwrite, truncate, move, cut, repeat, edit_header, edit_box)[int(rng.integers(8))]
        if len(data) > 16:
            change(data, rng)
            names.append(change.__name__)
    return bytes(data), "+".join(names)


def flip(data: bytearray, rng: np.random.Generator) -> None:
    """Flip single bits, few or many."""
    count = int(2 ** rng.uniform(0, 10))
    for place in rng.integers(0, len(data), count):
        data[place] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    """Replace a stretch by zeros, ones or noise."""
    begin, end = stretch(data, rng)
    data[begin:end] = (bytes(end - begin), b"\xff" * (end - begin), rng.bytes(end - begin))[int(rng.integers(3))]


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    """Cut the end off."""
    del data[int(len(data) * rng.uniform(0.02, 1)) :]


def move(data: bytearray, rng: np.random.Generator) -> None:
    """Take a stretch out and put it in elsewhere."""
    begin, end = stretch(data, rng)
    block = data[begin:end]
    del data[begin:end]
    place = int(rng.integers(len(data) + 1))
    data[place:place] = block


def cut(data: bytearray, rng: np.random.Generator) -> None:
    """Take a stretch out."""
    begin, end = stretch(data, rng)
    del data[begin:end]


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    """Put a stretch in twice."""
    begin, end = stretch(data, rng)
    data[end:end] = data[begin:end]


def edit_header(data: bytearray, rng: np.random.Generator) -> None:
    """Change numbers near the start of the file."""
    for _ in range(int(rng.integers(1, 6))):
        write_number(data, int(rng.integers(min(len(data), HEADER_BYTES))), rng)


def edit_box(data: bytearray, rng: np.random.Generator) -> None:
    """Change numbers in a box of an MP4 file's header; near the start where there is none."""
    place = data.find(BOXES[int(rng.integers(len(BOXES)))])
    for _ in range(int(rng.integers(1, 4))):
        write_number(data, min(len(data) - 1, max(place, 0) + int(rng.integers(-4, 96))) if place >= 0 else 0, rng)


def write_number(data: bytearray, place: int, rng: np.random.Generator) -> None:
    """Overwrite 1, 2 or 4 bytes with a number of the kind that programs trip over, or any."""
    size = (1, 2, 4)[int(rng.integers(3))]
    value = INTERESTING[int(rng.integers(len(INTERESTING)))] if rng.random() < 0.7 else int(rng.integers(2**32))
    new = (value % 2 ** (8 * size)).to_bytes(size, "big")
    place = max(0, min(place, len(data) - size))
    data[place : place + size] = new


def stretch(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """Begin and end of a random stretch, short ones as likely as long ones."""
    length = int(2 ** rng.uniform(0, math.log2(max(2, len(data) // 2))))
    begin = int(rng.integers(len(data) - length + 1))
    return begin, begin + length


def read_everything(path: str) -> str:
    """Read a file in every way. Returns what contradicts the reader's documentation, or an empty text."""
    with MediaFile(path) as media:
        info = media.info
        times = [0.0, info.duration_seconds / 3, info.duration_seconds * 0.9, info.duration_seconds + 1]
        if not all(map(math.isfinite, times)) or info.duration_seconds < 0:
            return f"duration {info.duration_seconds}"
        if info.has_picture:
            if media.frame(times[1]).shape[2:] != (3,):
                return "a frame without three colours"
            if media.frames(times, SMALL).shape != (4, 32, 40, 3):
                return "frames of a wrong shape"
        if info.has_sound:
            for start in times:
                waveform = media.sound(start, 1.5)
                if len(waveform) > 24000 or not np.isfinite(waveform).all() or np.abs(waveform).max(initial=0) > 1:
                    return f"sound of {len(waveform)} samples, or not in [-1, 1]"
    with MediaFile(path, seek="nearest_keyframe") as media:
        if info.has_picture and media.frame(times[1], SMALL).shape != (32, 40, 3):
            return "a key frame of a wrong shape"
    return ""


def try_mutation(number: int, sources: list[str], seed: int, memory_mib: int, folder: str) -> Outcome:
    """Make one mutation and read it; runs in a process that may die of it."""
    source, content, changes = mutation(number, sources, seed)
    limit_memory(memory_mib)
    path = os.path.join(folder, f"{number}{Path(source).suffix}")
    Path(path).write_bytes(content)
    began, before = time.monotonic(), peak_mib()
    verdict, detail = "read", ""
    try:
        detail = read_everything(path)
        verdict = "wrong result" if detail else "read"
    except MediaError as error:
        verdict, detail = "refused", error.cause
        if path not in str(error) or "\n" in str(error):
            verdict = "wrong result"
    except Exception:  # noqa: BLE001 - whatever it is, it is what this script is looking for
        verdict, detail = "exception", traceback.format_exc()
    if verdict != "exception":
        try:
            inspect_clip(Clip(id=str(number), path=path), AuditConfig(source=folder, out="none.csv"))
        except Exception:  # noqa: BLE001
            verdict, detail = "exception", traceback.format_exc()
    peak = peak_mib()
    if peak > before and peak > memory_mib:
        verdict, detail = "memory", f"{peak} MiB"
    os.remove(path)
    return Outcome(number, os.path.basename(source), changes, verdict, detail, time.monotonic() - began, peak)


def mutation(number: int, sources: list[str], seed: int) -> tuple[str, bytes, str]:
    """Source, content and description of a mutation."""
    rng = np.random.default_rng([seed, number])
    source = sources[int(rng.integers(len(sources)))]
    content, changes = mutate(Path(source).read_bytes(), rng)
    return source, content, changes


def limit_memory(memory_mib: int) -> None:
    """Let this process claim no more than four times the limit beyond what it has (claims are not all used)."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        with open("/proc/self/statm") as file:
            claimed = int(file.read().split()[0]) * resource.getpagesize()
        limit = claimed + 4 * memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak_mib() -> int:
    """The most memory this process has used so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def numbers_to_do(args: argparse.Namespace, results: Path, settings: str) -> tuple[list[int], list[Outcome]]:
    """Mutations still to be tried, and the outcomes that results of the same settings already hold."""
    if args.only is not None:
        return [args.only], []
    done: list[Outcome] = []
    if results.exists():
        lines = results.read_text().split("\n")[:-1]  # a last line without its end was being written
        if lines and lines[0] == settings:
            done = [Outcome(**json.loads(line)) for line in lines[1:]]
    results.write_text("".join(f"{line}\n" for line in (settings, *(json.dumps(asdict(outcome)) for outcome in done))))
    known = {outcome.number for outcome in done}
    return [number for number in range(args.num) if number not in known], done


def outcomes(args: argparse.Namespace, sources: list[str], numbers: list[int]) -> Iterator[Outcome]:
    """The outcome of each mutation; a process that died or hung is one too."""
    with tempfile.TemporaryDirectory() as folder:
        work = partial(try_mutation, sources=sources, seed=args.seed, memory_mib=args.memory_mib, folder=folder)
        results = map_isolated(work, numbers, args.jobs, args.time_limit)
        for number, result in zip(numbers, results, strict=True):
            if isinstance(result, Casualty):
                source, _, changes = mutation(number, sources, args.seed)
                result = Outcome(number, os.path.basename(source), changes, "crash or hang", result.cause)
            yield result


def parse_arguments() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", nargs="+", help="clips, or folders of clips, to damage copies of")
    parser.add_argument("--out", required=True, help="folder for results.jsonl and the files of findings")
    parser.add_argument("--num", type=int, default=1000, help="how many mutations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--time_limit", type=float, default=10.0, help="seconds a mutation may take")
    parser.add_argument("--memory_mib", type=int, default=1024, help="memory a process may use")
    parser.add_argument("--max_source_kib", type=int, default=4096, help="larger clips are left out")
    parser.add_argument("--only", type=int, help="try this one mutation again, in this process, and keep its file")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    console = Console()
    files = [
        file for source in map(Path, args.sources) for file in (source.rglob("*") if source.is_dir() else [source])
    ]
    sources = sorted(str(f) for f in files if f.is_file() and 16 < f.stat().st_size <= args.max_source_kib * 1024)
    if not sources:
        console.print("no clip there that is small enough")
        return 2
    out = Path(args.out)
    (out / "findings").mkdir(parents=True, exist_ok=True)
    results = out / "results.jsonl"
    settings = json.dumps({"sources": sources, "seed": args.seed})
    numbers, done = numbers_to_do(args, results, settings)
    if args.only is not None:
        args.jobs = 0
    for outcome in track(outcomes(args, sources, numbers), total=len(numbers), console=console, description="fuzzing"):
        done.append(outcome)
        if args.only is None:
            with results.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
        if outcome.is_finding or args.only is not None:
            source, content, _ = mutation(outcome.number, sources, args.seed)
            (out / "findings" / f"{outcome.number}{Path(source).suffix}").write_bytes(content)
            console.print(outcome, highlight=False)
    console.print(dict(Counter(outcome.verdict for outcome in done)))
    slowest, largest = max((o.seconds for o in done), default=0), max((o.peak_mib for o in done), default=0)
    console.print(f"slowest {slowest:.1f} s, most memory {largest} MiB")
    return int(any(outcome.is_finding for outcome in done))


if __name__ == "__main__":
    sys.exit(main())
