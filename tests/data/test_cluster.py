"""Bulk work on a real Ray cluster of this machine: the results of the local run, also when workers are killed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from deepavfusion.data.audit import CLIPS_PER_UNIT, AuditConfig, audit
from deepavfusion.data.clips import find_clips
from deepavfusion.data.cluster import Cluster, ClusterError, connected, local_environment
from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.data.shard_writing import ShardConfig, write_shards
from deepavfusion.data.workers import LINUX, Casualty, map_isolated
from deepavfusion.evaluation.config import EmbedConfig, EvaluationData
from deepavfusion.evaluation.features.embedding import Piece, embed, embed_piece
from tests.data.test_workers import behave
from tests.tasks.classification_runs import write_encoder

HEAD = """
import sys
import ray
ray.init(address="local", num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
NUM_CLIPS = 4 * CLIPS_PER_UNIT + 3

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, int]]:
    """The address of a cluster of two CPUs, and the process that it belongs to."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in local_environment().items():
            patch.setenv(name, value)
        command = [sys.executable, "-c", HEAD]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("address "))
            yield line.split()[1], process.pid
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, most of them copies of others, one that cannot be read, one without anything in it."""
    folder = tmp_path_factory.mktemp("clips")
    paths = write_sample_clips(folder / "train", 8, duration_seconds=1.2, size=64)
    for number in range(NUM_CLIPS - len(paths) - 2):
        shutil.copy(paths[number % 8], folder / f"train/copy_{number:03d}.mp4")
    (folder / "train/broken.mp4").write_bytes(b"not a video")
    (folder / "train/empty.mp4").write_bytes(b"")
    return folder


class Assassin:
    """Kills a worker of the cluster in the middle of the work: after the first results, while it does a unit."""

    def __init__(self, head: int, find: Callable[[], int | None] | None = None) -> None:
        self.head, self.killed = head, 0
        self.find = find or self.at_work
        self.thread = threading.Thread(target=self.lurk, daemon=True)

    def progress(self, done: int, total: int) -> None:
        if done and not self.thread.is_alive() and not self.killed:
            self.thread.start()

    def lurk(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            victim = self.find()
            if victim is not None and self.head in ancestors(victim):
                os.kill(victim, signal.SIGKILL)
                self.killed = victim
                return
            time.sleep(0.002)

    def at_work(self) -> int | None:
        """A worker whose title says that it does a unit; the title of others is `ray::IDLE`."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                title = path.read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::Map"):
                return int(path.parent.name)
        return None


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
        found.append(pid)
    return found


class NotInstalled:
    """What a worker cannot load."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return importlib.import_module, ("not_installed",)


def square_or_die(item: tuple[int, str], extra: object = None) -> tuple[int, int, str]:
    """The square; the first time that 3 is asked for, the worker is killed. Leaves a line for every attempt."""
    number, folder = item
    attempts = Path(folder) / f"{number}.txt"
    with open(attempts, "a") as file:
        file.write(f"{os.getpid()}\n")
    if number == 3 and len(attempts.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 99:
        raise ValueError("99 is too much\nfor one line")
    return number**2, os.getpid(), os.getcwd()


def crash_on_three(item: int) -> list[int | Casualty]:
    """What odd files do to a decoder, in a process of the worker's own."""
    return list(map_isolated(behave, [item], 1, timeout_seconds=30))


@needs_ray
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.skipif(not LINUX, reason="the cluster of the tests stays on the loopback interface on Linux only")
class TestCluster:
    def test_a_unit_is_done_again_when_its_worker_is_killed(self, head: tuple[str, int], tmp_path: Path) -> None:
        with connected(head[0]) as cluster:
            assert (cluster.num_cpus, cluster.num_gpus) == (2, 0)
            results = dict(cluster.map(square_or_die, [(number, str(tmp_path)) for number in range(8)], num_cpus=1))
            assert {number: result[0] for number, result in results.items()} == {n: n * n for n in range(8)}
            assert {result[2] for result in results.values()} == {os.getcwd()}
            assert os.getpid() not in {result[1] for result in results.values()}
            attempts = (tmp_path / "3.txt").read_text().split()
            assert len(attempts) == 2
            assert results[3][1] == int(attempts[1]) != int(attempts[0])
            relayed = Cluster(sys.modules["ray"], outside=True)  # as for ray://
            assert dict(relayed.map(crash_on_three, [2, 3], num_cpus=1)) == {
                0: [4],
                1: [Casualty("the reading process died of SIGSEGV")],
            }
            with pytest.raises(ClusterError, match=r"^99 is too much \(on .*\)$") as failure:
                list(cluster.map(square_or_die, [(99, str(tmp_path))], num_cpus=1))
            assert "square_or_die" in str(failure.value.__cause__)
            with pytest.raises(ClusterError, match=r"^--ray: the cluster failed: .*No module named 'not_installed'$"):
                list(cluster.map(partial(square_or_die, extra=NotInstalled()), [(0, str(tmp_path))], num_cpus=1))

    def test_audit(self, head: tuple[str, int], clips: Path, tmp_path: Path) -> None:
        whole = AuditConfig(str(clips), str(tmp_path / "whole.csv"), num_workers=0)
        audit(whole)
        assassin = Assassin(head[1])
        config = replace(whole, out=str(tmp_path / "a.csv"), ray=head[0], num_workers=1)
        summary = audit(config, assassin.progress)
        assert assassin.killed
        assert summary.num_looked_at == NUM_CLIPS
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "whole.csv", "whole.json"]

    def test_a_stopped_audit_goes_on(self, head: tuple[str, int], clips: Path, tmp_path: Path) -> None:
        config = AuditConfig(str(clips), str(tmp_path / "a.csv"), ray=head[0], num_workers=0)

        def stop(done: int, total: int) -> None:
            if done == CLIPS_PER_UNIT:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            audit(config, stop)
        assert audit(replace(config, ray=None, num_workers=1)).num_looked_at == NUM_CLIPS - CLIPS_PER_UNIT

    def test_shard(self, head: tuple[str, int], clips: Path, tmp_path: Path) -> None:
        whole = ShardConfig(str(clips), str(tmp_path / "whole"), clips_per_shard=10, num_workers=0)
        write_shards(whole)

        def writing() -> int | None:
            """The worker that has begun a shard."""
            names = [path.name for path in (tmp_path / "a").glob("*.tar.*.partial")]
            return int(names[0].split("-")[-1].removesuffix(".partial")) if names else None

        assassin = Assassin(head[1], writing)
        config = replace(whole, out=str(tmp_path / "a"), ray=head[0], num_workers=1)
        summary = write_shards(config, assassin.progress)
        assert assassin.killed
        assert (summary.num_written, summary.complete, len(summary.failures)) == (7, True, 2)
        a, b = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "whole"))
        assert a == b

    def test_embed(self, head: tuple[str, int], clips: Path, tmp_path: Path) -> None:
        encoder = write_encoder(tmp_path / "encoder")
        data = EvaluationData(str(clips), "all", num_workers=0)
        whole = EmbedConfig(str(encoder), data, str(tmp_path / "whole.npz"), clips_per_part=9, batch_size=4)
        embed(whole)
        assassin = Assassin(head[1])
        summary = embed(replace(whole, out=str(tmp_path / "a.npz"), ray=head[0]), assassin.progress)
        assert assassin.killed
        assert summary is not None
        assert (summary.num_clips, summary.num_continued) == (NUM_CLIPS - 2, 0)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
        assert not (tmp_path / "a.npz.parts").exists()

    def test_the_command_with_a_cluster_of_its_own(self, clips: Path, tmp_path: Path) -> None:
        """With relative paths, and nothing but the bar and the table on the terminal."""
        folder = tmp_path / "clips"
        folder.mkdir()
        for path in sorted(clips.rglob("00*.mp4"))[:4]:
            shutil.copy(path, folder)
        words = ["audit", "clips", "--out", "a.csv", "--num_workers", "1", "--ray", "local"]
        command = [sys.executable, "-m", "deepavfusion", *words]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert audit(AuditConfig(str(folder), str(tmp_path / "a.csv"), num_workers=0)).num_looked_at == 0
        assert re.sub(r"[^a-z]+", "", run.stderr) == "clipsleft"


WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
from deepavfusion.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_the_extra_one_line_says_so(tmp_path: Path) -> None:
    write_sample_clips(tmp_path / "clips", 1, duration_seconds=1.2, size=64)
    words = ["audit", str(tmp_path / "clips"), "--out", str(tmp_path / "a.csv"), "--ray", "local"]
    run = subprocess.run([sys.executable, "-c", WITHOUT_RAY, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "error: --ray needs the extra: pip install 'deepavfusion[ray]'" in run.stderr.splitlines()[-1]


def test_addresses() -> None:
    for address in ("auto", "local", "10.0.0.1:6379", "ray://head.cluster:10001", "[::1]:6379"):
        AuditConfig("x", "a.csv", ray=address)
    for address in ("Local", "head", "http://head:80", "ray://head", "ray:"):
        with pytest.raises(ValueError, match=r"ray '.*' must be auto, local, host:port or ray://host:port"):
            AuditConfig("x", "a.csv", ray=address)
    with pytest.raises(ValueError, match="ray 'head' must be"):
        ShardConfig("x", "a", ray="head")
    with pytest.raises(ValueError, match="ray 'head' must be"):
        EmbedConfig("x", EvaluationData("x"), "a.npz", ray="head")


@needs_ray
def test_where_nothing_answers() -> None:
    with pytest.raises(ClusterError, match=r"--ray 127\.0\.0\.1:9: no answer from there"), connected("127.0.0.1:9"):
        pass


def test_torchrun_and_ray_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="ray local: distributes the clips itself; start it without torchrun"):
        embed(EmbedConfig("x", EvaluationData("x"), "a.npz", ray="local"))


def test_a_worker_that_sees_another_encoder_refuses(clips: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    config = EmbedConfig(str(encoder), EvaluationData(str(clips), "all", num_workers=0), str(tmp_path / "a.npz"))
    piece = Piece(tmp_path / "piece.npz", tuple(find_clips(str(clips))[:1]))
    with pytest.raises(ValueError, match=r"from .*: has weights \w+ here, 0123 where the command runs"):
        embed_piece(piece, config, "cpu", "0123")
    assert not piece.path.exists()
