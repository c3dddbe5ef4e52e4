"""Compare embedded stores of vectors, each in a process of its own on one core: what `index` could stand on.

    pip install lancedb usearch faiss-cpu
    python scripts/vector_stores.py --json docs/results/vector_stores.json [--rows 1000000] [--only TEXT]

The vectors are made up, with a fixed seed: unit vectors of 128 numbers, windows about clips about classes, as an index
of an archive has them. Queries are windows of further clips of the same classes; those of `another sense` are moved by
one constant vector, as sounds are that are looked for among pictures. Vectors are given in blocks of 10,000, each saved
before the next, as far as the store saves anything but the whole.

For every store: CPU seconds until all is written and indexed, its files, memory at most while building and while
searching, CPU time of one query, recall@10 against exact search, seconds until 10,000 vectors more are saved and found,
and what is there after SIGKILL in the middle of saving the eleventh block, several times over at random moments.

Needs Linux (/proc, sched_setaffinity).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from vector_store_kinds import STORES, VectorStore

DIM, BLOCK, NUM_QUERIES, K = 128, 10_000, 200, 10
NUM_KILLS = 6
CLASSES, WINDOWS_PER_CLIP = 300, 20


def make_vectors(rows: int, out: Path) -> None:
    """Write `vectors.f32` (rows), `more.f32` (one block), and the queries."""
    rng = np.random.default_rng(0)

    def unit(x: np.ndarray) -> np.ndarray:
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def noise(count: int) -> np.ndarray:
        return rng.standard_normal((count, DIM), dtype=np.float32) / np.float32(np.sqrt(DIM))

    classes = unit(noise(CLASSES))

    def windows(count: int) -> np.ndarray:
        clips = classes[rng.integers(CLASSES, size=-(-count // WINDOWS_PER_CLIP))]
        clips = clips + np.float32(0.7) * noise(len(clips))
        return unit(np.repeat(clips, WINDOWS_PER_CLIP, axis=0)[:count] + np.float32(0.35) * noise(count))

    for name, count in (("vectors", rows), ("more", BLOCK)):
        with open(out / f"{name}.f32", "wb") as file:
            for _ in range(0, count, BLOCK):
                windows(min(BLOCK, count)).tofile(file)
    queries = windows(NUM_QUERIES * WINDOWS_PER_CLIP)[::WINDOWS_PER_CLIP]
    np.save(out / "queries.npy", queries)
    np.save(out / "moved.npy", unit(queries + unit(noise(1))))


def blocks(path: Path) -> Iterator[np.ndarray]:
    """Blocks of vectors `(BLOCK, DIM)`, read one after the other."""
    with open(path, "rb") as file:
        while len(block := np.fromfile(file, np.float32, BLOCK * DIM)):
            yield block.reshape(-1, DIM)


def exact(data: Path, queries: np.ndarray) -> np.ndarray:
    """The rows `(Q, K)` with the largest dot products."""
    best, rows = np.full((len(queries), K), -np.inf, np.float32), np.zeros((len(queries), K), np.int64)
    for number, block in enumerate(blocks(data)):
        scores = np.concatenate([best, queries @ block.T], axis=1)
        own = np.broadcast_to(np.arange(len(block)) + number * BLOCK, (len(queries), len(block)))
        rows = np.concatenate([rows, own], axis=1)
        top = np.argpartition(-scores, K, axis=1)[:, :K]
        best, rows = np.take_along_axis(scores, top, 1), np.take_along_axis(rows, top, 1)
    return rows


def recall(found: list[np.ndarray], true: np.ndarray) -> float:
    return float(np.mean([len(set(map(int, a)) & set(map(int, b))) / K for a, b in zip(found, true, strict=True)]))


def peak_mib() -> float:
    """Most memory that this process has had, mapped files included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def build(store: VectorStore, work: Path) -> dict[str, Any]:
    wall, start = time.perf_counter(), time.process_time()
    for block in blocks(work / "vectors.f32"):
        store.add(block)
    store.finish()
    used = time.process_time() - start
    size = sum(f.stat().st_size for f in store.place.rglob("*") if f.is_file())
    return {
        "build_cpu_seconds": used,
        "build_wall_seconds": time.perf_counter() - wall,
        "build_peak_mib": peak_mib(),
        "file_mib": size / 2**20,
    }


def query(store: VectorStore, work: Path) -> dict[str, Any]:
    start = time.process_time()
    store.open()
    result: dict[str, Any] = {"open_cpu_seconds": time.process_time() - start}
    for name in ("queries", "moved"):
        queries = np.load(work / f"{name}.npy")
        store.search(queries[0], K)
        start = time.process_time()
        found = [store.search(q, K) for q in queries]
        result[f"{name}_ms"] = 1000 * (time.process_time() - start) / len(queries)
        result[f"{name}_recall"] = recall(found, np.load(work / f"{name}_true.npy"))
    return {**result, "query_peak_mib": peak_mib()}


def more(store: VectorStore, work: Path) -> dict[str, Any]:
    """Open, add a block, save: what a second run of `index` costs."""
    block = next(blocks(work / "more.f32"))
    before, start = store.count(), time.process_time()
    store.add(block)
    store.finish()
    used = time.process_time() - start
    store.open()
    found = [int(store.search(block[n], 1)[0]) for n in range(0, 200, 10)]
    own = [before + n for n in range(0, 200, 10)]
    return {"more_cpu_seconds": used, "more_found": sum(a == b for a, b in zip(found, own, strict=True)) / len(own)}


def endless(store: VectorStore, work: Path) -> dict[str, Any]:
    """Add and save blocks until killed, and say when saving begins and ends."""

    def say(word: str) -> None:
        sys.stdout.write(f"{word}\n")
        sys.stdout.flush()

    while True:
        for block in blocks(work / "more.f32"):
            if not store.saves_adding:
                store.add(block)
            say("saving")
            if store.saves_adding:
                store.add(block)
            store.finish()
            say("saved")


def check(store: VectorStore, work: Path) -> dict[str, Any]:
    """What is there: how many vectors, and whether they can be searched."""
    count = store.count()
    store.open()
    store.search(np.load(work / "queries.npy")[0], K)
    return {"count": count}


PHASES = {"build": build, "query": query, "more": more, "endless": endless, "check": check}


def run(phase: str, name: str, place: Path, work: Path) -> dict[str, Any]:
    """One phase in a process of its own."""
    words = [sys.executable, __file__, "--phase", phase, "--only", name, "--place", str(place), "--work", str(work)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"error": last[:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def kill(name: str, work: Path) -> dict[str, Any]:
    """Kill a process while it saves, again and again, and look what is left each time."""
    rng, place, outcomes = random.Random(0), work / "killed", []
    for _ in range(NUM_KILLS):
        shutil.rmtree(place, ignore_errors=True)
        words = ["--phase", "endless", "--only", name, "--place", str(place), "--work", str(work)]
        child = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(10):
            child.stdout.readline()  # saving
            begin = time.monotonic()
            child.stdout.readline()  # saved
            took = time.monotonic() - begin
        child.stdout.readline()
        time.sleep(rng.random() * took)  # in the middle of the eleventh
        child.send_signal(signal.SIGKILL)
        saved = 10 + child.stdout.read().count("saved")
        child.wait()
        left = run("check", name, place, work)
        if "error" in left:
            outcomes.append(f"not to be opened: {left['error']}")
        elif left["count"] % BLOCK:
            outcomes.append("half a block")
        else:
            outcomes.append("whole" if left["count"] >= saved * BLOCK else "saved blocks lost")
    shutil.rmtree(place, ignore_errors=True)
    return {"kills": NUM_KILLS, "whole": outcomes.count("whole"), "broken": sorted(set(outcomes) - {"whole"})}


def measure(name: str, work: Path, rows: int, parts: set[str]) -> dict[str, Any]:
    place = work / "store"
    shutil.rmtree(place, ignore_errors=True)
    record: dict[str, Any] = {"store": name}
    if "cost" in parts:
        record["rows"] = rows
        for phase in ("build", "query", "more"):
            record |= run(phase, name, place, work)
            if "error" in record:
                return record
        shutil.rmtree(place)
    return record | (kill(name, work) if "kill" in parts else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="result file; rows of other stores in it stay")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help="stores whose name has this in it")
    parser.add_argument("--parts", nargs="+", default=["cost", "kill"], choices=["cost", "kill"])
    parser.add_argument("--work", type=Path, help="folder of temporary files")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.phase:
        sys.stdout.write(json.dumps(PHASES[given.phase](STORES[given.only](given.place, DIM), given.work)) + "\n")
        return 0
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # inherited by all that follow
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LANCE_CPU_THREADS": "1"}
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        work = Path(folder)
        make_vectors(given.rows, work)
        for name in ("queries", "moved") if "cost" in given.parts else ():
            np.save(work / f"{name}_true.npy", exact(work / "vectors.f32", np.load(work / f"{name}.npy")))
        for name in [name for name in STORES if given.only in name]:
            record = measure(name, work, given.rows, set(given.parts))
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()
            if given.json:
                old = json.loads(given.json.read_text())["rows"] if given.json.exists() else []
                kept = {r["store"]: r for r in old}
                kept[name] = kept.get(name, {}) | record
                ordered = [kept[n] for n in STORES if n in kept]
                about = {
                    "cpu": platform.processor() or platform.machine(),
                    "dim": DIM,
                    "queries": NUM_QUERIES,
                    "versions": {n: version(n) for n in ("numpy", "lancedb", "usearch", "faiss-cpu")},
                }
                given.json.write_text(json.dumps({**about, "rows": ordered}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
