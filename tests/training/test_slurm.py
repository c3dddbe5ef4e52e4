"""docs/slurm/node.sh, as SLURM would use it on one node: the signal, the exit code, the continuation."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepavfusion.data.sample_clips import write_sample_clips
from deepavfusion.training import checkpoints

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm" / "node.sh"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("pkill") is None, reason="needs pkill")
def test_a_signal_to_the_step_saves_and_exits_75_and_the_same_command_finishes(tmp_path: Path) -> None:
    write_sample_clips(tmp_path / "clips", 8, duration_seconds=1.0, size=96)
    run, log = tmp_path / "run", tmp_path / "log"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GPUS_PER_NODE": "2",
        "HEAD": f"localhost:{port}",
        "OMP_NUM_THREADS": "1",
    }
    settings = {"data.source": tmp_path / "clips", "data.num_workers": 0, "run_dir": run, "training.strategy": "fsdp"}
    settings |= {"training.device": "cpu", "training.batch_size": 8, "training.log_every": 1, "optim.epochs": 12}
    settings |= {"training.picture_every": 0, "training.probe_every": 0}
    words = ["bash", str(SCRIPT), "pretrain", "--config", "tiny", *(f"--{k}={v}" for k, v in settings.items())]
    with open(log, "wb") as file:
        # A session of its own, so that the signal reaches all of it, as SLURM's reaches all of a job step.
        job = subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)
        deadline = time.monotonic() + 300
        while not (run / "metrics.csv").exists():
            assert job.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGUSR1)
        assert job.wait(timeout=300) == 75, log.read_text()
    saved = checkpoints.latest(run / "checkpoints")
    assert saved is not None
    assert saved.is_dir()
    assert not (run / "model").exists()
    assert subprocess.run(words, env=environment, capture_output=True, timeout=500).returncode == 0
    assert (run / "model" / "model.safetensors").exists()
