"""Checkpoints in folders: whole or absent, damage found, no code run. (One process can write and read them too.)"""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from deepavfusion.configuration import TrainingConfig
from deepavfusion.training import checkpoints
from deepavfusion.training.processes import Processes

GROUPS = [{"lr": 0.1, "params": [0], "names": ["w"]}, {"lr": 0.2, "params": [1], "names": ["inner.b"]}]
TENSORS = {
    "model.w": torch.arange(20000.0).view(100, 200),
    "model.inner.b": torch.arange(7.0),
    "model.buffer": torch.arange(3),
    "optimizer.w.exp_avg": torch.full((100, 200), 0.5),
    "optimizer.w.step": torch.tensor(4.0),
    "optimizer.inner.b.exp_avg": torch.ones(7),
}


@pytest.fixture
def processes() -> Processes:
    return Processes(TrainingConfig(device="cpu"))


def save(directory: Path, step: int, processes: Processes, keep: int = 2) -> Path:
    content = {"kind": "toy", "model_config": {}, "optimizer_groups": GROUPS, "means": {"names": ["a"]}}
    return checkpoints.save_sharded(directory, step, content, TENSORS, keep, processes)


def test_it_reads_as_a_file_would(tmp_path: Path, processes: Processes) -> None:
    path = save(tmp_path, 7, processes)
    loaded = checkpoints.load(path)
    assert (path.name, loaded["step"], loaded["kind"]) == ("step_00000007", 7, "toy")
    assert set(loaded) == {"format", "step", "kind", "model_config", "means", "model", "optimizer"}
    assert list(loaded["model"]) == ["w", "inner.b", "buffer"]
    for name, tensor in loaded["model"].items():
        assert torch.equal(tensor, TENSORS[f"model.{name}"])
    assert loaded["optimizer"]["param_groups"] == GROUPS
    assert loaded["optimizer"]["state"][0].keys() == {"exp_avg", "step"}
    assert torch.equal(loaded["optimizer"]["state"][1]["exp_avg"], torch.ones(7))


def test_the_latest_of_both_kinds_stay(tmp_path: Path, processes: Processes) -> None:
    save(tmp_path, 5, processes)
    checkpoints.save(tmp_path, 10, {}, keep=2)
    save(tmp_path, 15, processes)
    save(tmp_path, 15, processes)  # saved again, as a stop right after a checkpoint does
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step_00000010.pt", "step_00000015"]
    checkpoints.save(tmp_path, 15, {}, keep=2)  # and by a run that shares nothing out
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step_00000010.pt", "step_00000015.pt"]


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "run.pt"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_found_and_the_one_before_taken(tmp_path: Path, processes: Processes, name: str, damage: str) -> None:
    save(tmp_path, 1, processes)
    path = save(tmp_path, 2, processes) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(content[:-9] if damage == "cut" else content)
    with pytest.raises(checkpoints.DamagedCheckpoint, match=rf"step_00000002 is damaged: .*{name}"):
        checkpoints.load(path.parent)
    with pytest.raises(checkpoints.DamagedCheckpoint, match=rf"step_00000002 is damaged: .*{name}"):
        checkpoints.load_for_sharing(path.parent, processes)
    said: list[str] = []
    found = checkpoints.load_latest(tmp_path, said.append)
    assert found is not None
    assert found["step"] == 1
    assert len(said) == 2


def test_unfinished_and_half_removed_ones_do_not_count(tmp_path: Path, processes: Processes) -> None:
    path = save(tmp_path, 1, processes)
    path.rename(tmp_path / ".writing_step_00000001")
    save(tmp_path, 2, processes).rename(tmp_path / ".removing_step_00000002")
    assert checkpoints.latest(tmp_path) is None
    checkpoints.remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


def test_code_in_the_metadata_is_not_run(tmp_path: Path, processes: Processes) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "ran"),))

    path = save(tmp_path, 1, processes)
    (path / ".metadata").write_bytes(pickle.dumps(Evil()))
    from deepavfusion.training import sharded_checkpoints

    listed = {p.name: sharded_checkpoints._checksum(p) for p in path.iterdir() if p.name != "files.json"}
    (path / "files.json").write_text(str(listed).replace("'", '"'))  # whoever writes one file can write the other
    with pytest.raises(ValueError, match=r"step_00000001 was refused: loading it could run code .*mkdir"):
        checkpoints.load(path)
    assert not (tmp_path / "ran").exists()


class Attribute:
    """Pickled as a call of getattr, as early versions of Python 3.11 store members of enumerations."""

    def __init__(self, kind: type, name: str) -> None:
        self.named = kind, name

    def __reduce__(self) -> tuple:
        return getattr, self.named


def test_members_of_enumerations_are_read_and_no_other_attribute() -> None:
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

    from deepavfusion.training.sharded_checkpoints import _MetadataUnpickler

    member = _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT
    stored = pickle.dumps(Attribute(_MEM_FORMAT_ENCODING, member.name))
    assert _MetadataUnpickler(io.BytesIO(stored)).load() is member
    for kind, name in ((Metadata, "__init__"), (_MEM_FORMAT_ENCODING, "__members__")):
        with pytest.raises(pickle.UnpicklingError, match="could run code"):
            _MetadataUnpickler(io.BytesIO(pickle.dumps(Attribute(kind, name)))).load()
