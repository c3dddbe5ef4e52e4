"""The command as a user meets it: help, errors of one line that name the flag, and no torch before it is needed."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deepavfusion import __version__
from deepavfusion.arguments import RECIPES, UsageError, parse_arguments
from deepavfusion.cli import TRACEBACK, VERBS, main
from deepavfusion.tasks.pretraining_config import PretrainConfig
from deepavfusion.verbs.verb import parsed


def without_torch(*lines: str) -> subprocess.CompletedProcess:
    """Run command lines one after the other in a process in which importing torch fails; stop at the first failure."""
    code = """import sys
sys.modules["torch"] = None
from deepavfusion.cli import main
for line in sys.argv[1:]:
    print("=====", flush=True)
    if status := main(line.split()):
        sys.exit(status)
"""
    return subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True, timeout=60)


def test_evaluate_finds_the_task_by_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    config = tmp_path / "run" / "model" / "config.json"
    config.write_text('{"model": "AudioVisualClassifier"}')
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "deepavfusion evaluate classification: error: missing --data.source" in capsys.readouterr().err
    config.write_text('{"model": "AudioVisualMAE"}')
    assert main(["evaluate", str(tmp_path / "run"), "--data.source", "x"]) == 2
    assert "holds AudioVisualMAE, which no task trains" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--data.source", "x"]) == 2
    assert "no trained model there; give a finished run, or name the task" in capsys.readouterr().err
    assert main(["evaluate", "--help"]) == 2
    assert "evaluate needs a second word: evaluate classification" in capsys.readouterr().err


def test_help_and_version_do_not_import_torch() -> None:
    lines = ["--version", "--help", *(f"{verb} --help" for verb in VERBS)]
    result = without_torch(*lines)
    assert result.returncode == 0, result.stderr
    outputs = result.stdout.split("=====\n")[1:]
    assert outputs[0] == f"deepavfusion {__version__}\n"
    assert all(verb in outputs[1] for verb in VERBS)
    for verb, output in zip(VERBS, outputs[2:], strict=True):
        assert output.startswith(f"usage: deepavfusion {verb} ")
        assert "from_" not in output  # the flag is --from


def test_the_overview_loads_no_library() -> None:
    code = """import sys
from deepavfusion.cli import main
main(["--help"])
heavy = {"numpy", "torch", "rich", "yaml", "av", "jsonargparse"} & set(sys.modules)
sys.exit(", ".join(heavy) or 0)"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain --run_dir a", "missing --data.source"),
        ("pretrain --data.source x", "missing --run_dir"),
        ("pretrain --run_dir a --data.sorce x", "unknown option --data.sorce; did you mean --data.source?"),
        ("pretrain --run_dir a --data.source x --blr 1", "unknown option --blr; did you mean --optim.blr?"),
        (
            "pretrain --run_dir a --data.source x --model.num_heads 7",
            "--model.num_heads 7 does not divide embed_dim 768",
        ),
        ("pretrain --run_dir a --data.source x --model.num_heads x", "--model.num_heads: Expected a <class 'int'>"),
        (
            "pretrain --run_dir a --data.source x --model.fusion late",
            "--model.fusion: Expected a Literal['token', 'den",
        ),
        (
            "pretrain --run_dir a --data.source x --autoencoder.image_mask_ratio 0.999",
            "--autoencoder.image_mask_ratio 0.999 keeps 0 of 196 image patches",
        ),
        (
            "pretrain --run_dir a --data.source x --optim.warmup_epochs 300",
            "--optim.warmup_epochs 300 must lie between 0 and epochs 200",
        ),
        ("pretrain --run_dir a --data.source x --config nope", "--config nope: no such file, and no such recipe"),
        (
            "predict a.mp4 b.mp4 --out x",
            "--task a.mp4: takes one or several of 'classification', 'localization', 'separation', 'segmentation', "
            "'embedding'",
        ),
        ("pretain", "unknown command 'pretain', did you mean 'pretrain'?"),
        (
            "bench",
            "bench needs a second word: bench model, bench decoder, bench curves, bench media, bench step, "
            "bench profile, bench predict, bench all",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_without_torch(words: str, message: str) -> None:
    result = without_torch(words)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == "=====\n"


def test_unknown_yaml_key_suggests_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("optim:\n  brl: 0.1\n")
    assert main(["pretrain", "--config", str(path), "--run_dir", "a", "--data.source", "x"]) == 2
    assert "unknown setting optim.brl; did you mean --optim.blr?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("run_dri: a\n", 1, "unknown setting run_dri; did you mean --run_dir?"),
        ("run_dir: a\n\noptm:\n  blr: 1\n", 3, "unknown setting optm; did you mean --optim.blr?"),
        ("# all\ntraining:\n  batch_size: 8\n  precison: x\n", 4, "did you mean --training.precision?"),
        ("blr: 0.1\n", 1, "unknown setting blr; did you mean --optim.blr?"),
        ("optim.brl: 0.1\n", 1, "unknown setting optim.brl; did you mean --optim.blr?"),
        ("nothing_like_it: 1\n", 1, "unknown setting nothing_like_it\n"),
        ("optim: {blr: 1, epoch: 3}\n", 1, "unknown setting optim.epoch; did you mean --optim.epochs?"),
        ("<<: {run_dri: a}\n", 1, "did you mean --run_dir?"),
        ("optim: 3\n", 1, "optim is a section; its settings are written below it"),
        ("optim:\n", 1, "optim is a section; its settings are written below it"),
        ("optim:\n  blr: 1\n  blr: 2\n", 3, "optim.blr is given twice"),
        ("1: 2\n", 1, "a setting's name must be a word, got 1"),
        ("run_dir: a\noptim:\n  blr: [1,\n", 4, "not YAML: "),
        ("optim:\n\tblr: 1\n", 2, "not YAML: "),
        ("a: b: c\n", 1, "not YAML: "),
        ("run_dir: 'a\n", 2, "not YAML: "),
        ("run_dir: !!python/object:os.system {}\n", 1, "not YAML: "),
        ("- a\n", None, "holds no settings"),
        ("words\n", None, "holds no settings"),
        ("", None, "holds no settings"),
        (b"\xff\xfe\x00", None, "cannot be read"),
        ("a: \x07\n", None, "cannot be read"),
    ],
)
@pytest.mark.parametrize("verb", ["pretrain"])
def test_a_mistake_in_yaml_is_named_with_file_and_line(
    verb: str, text: str | bytes, line: int | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main([*verb.split(), f"--config={path}", "--data.source", "x"]) == 2
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1
    assert f"--config {path}:{'' if line is None else f' line {line}:'} " in told
    assert message in told


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_suggests_the_nearest_key_of_a_yaml_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import fields, is_dataclass
    from typing import get_type_hints

    cls = VERBS[name].config()
    nested = [f for f in fields(cls) if is_dataclass(get_type_hints(cls)[f.name])]
    for f in (fields(cls)[0], *nested[:1]):
        kind = get_type_hints(cls)[f.name]
        inner = fields(kind)[0].name if is_dataclass(kind) else None
        text = f"{f.name}:\n  {inner}x: 1\n" if inner else f"{f.name.removesuffix('_')}x: 1\n"
        (tmp_path / "run.yaml").write_text(text)
        words = ["classification", "."] if name == "predict" else []
        assert main([*name.split(), *words, "--config", str(tmp_path / "run.yaml")]) == 2
        wanted = f"{f.name}.{inner}" if inner else f.name.removesuffix("_")
        assert f"did you mean --{wanted}?" in capsys.readouterr().err


def test_yaml_names_from_as_the_command_line_does(tmp_path: Path) -> None:
    from deepavfusion.evaluation.config import EmbedConfig

    path = tmp_path / "run.yaml"
    words = ["--config", str(path), "--data.source", "x", "--out", "f.npz"]
    for text in ("from: runs/a\nseed: 3\n", "seed: 3\n'from': runs/a", "{from_: runs/a, seed: 3}"):
        path.write_text(text)
        config = parse_arguments(EmbedConfig, words)
        assert (config.from_, config.seed) == ("runs/a", 3)
    path.write_text("from: a\nfrom_: b\n")
    with pytest.raises(UsageError, match="line 2: from is given twice"):
        parse_arguments(EmbedConfig, words)


def reader_that_leaves(words: list[str], both: bool = False) -> tuple[int, str]:
    """Run a command whose output nobody reads, its errors too if `both`; the exit code and what it says of it."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "deepavfusion", *words]
    os.close(read)  # before the first word is written
    try:
        result = subprocess.run(
            command, stdout=write, stderr=write if both else subprocess.PIPE, text=True, timeout=120, check=False
        )
    finally:
        os.close(write)
    return result.returncode, result.stderr or ""


SHIPPED = Path(__file__).parents[1] / "src" / "deepavfusion" / "shipped" / "bandstand"


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "pretrain --help",
        "pretrain --run_dir a --data.source x --print_config",
        pytest.param(f"inspect {SHIPPED}", marks=pytest.mark.slow),
    ],
)
def test_a_closed_pipe_ends_a_command_quietly(line: str) -> None:
    code, said = reader_that_leaves(line.split())
    assert said == ""
    # From Python 3.11.3 on, argparse itself passes over what it cannot print.
    assert code in ((0, 141) if line == "pretrain --help" else (141,))
    if line == "--help":
        assert reader_that_leaves(line.split(), both=True)[0] == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "deepavfusion", "--help"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.endswith("No space left on device")


def test_a_damaged_configuration_is_named_when_the_task_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model" / "config.json"
    path.parent.mkdir()
    for content in (b"", b'{"model": "Loc', b"[1]", b"{}", b"<html>", b"\xff", b'{"model": [1]}'):
        path.write_bytes(content)
        assert main(["evaluate", str(tmp_path), "--data.source", "x"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert str(path) in line or "which no task trains" in line


def test_yaml_command_line_and_python_give_the_same_configuration(tmp_path: Path) -> None:
    config = PretrainConfig(run_dir="runs/a", data=parse_arguments(PretrainConfig, MINIMAL).data)
    assert parse_arguments(PretrainConfig, MINIMAL) == config
    import yaml

    path = tmp_path / "run.yaml"
    changed = parse_arguments(
        PretrainConfig, [*MINIMAL, "--model.fusion_layers", "[10,11]", "--model.image_size", "[256,192]"]
    )
    assert changed.model.fusion_layers == (10, 11)
    assert changed.model.image_size == (256, 192)
    path.write_text(yaml.safe_dump(changed.to_dict()))
    assert parse_arguments(PretrainConfig, ["--config", str(path)]) == changed
    later = parse_arguments(PretrainConfig, ["--config", str(path), "--model.depth", "14"])
    assert (later.model.depth, later.model.fusion_layers) == (14, (10, 11))


MINIMAL = ["--run_dir", "runs/a", "--data.source", "x"]


# Those that begin with a task's recipe are read by that task's tests.
@pytest.mark.parametrize(
    "recipe", sorted(path.stem for path in RECIPES.glob("*.yaml") if "\nrecipe:" not in path.read_text())
)
def test_every_recipe_is_a_configuration(recipe: str) -> None:
    assert parse_arguments(PretrainConfig, ["--config", recipe, *MINIMAL]).run_dir == "runs/a"


def test_published_recipes_are_the_published_settings() -> None:
    vggsound = parse_arguments(PretrainConfig, ["--config", "vggsound", *MINIMAL])
    audioset = parse_arguments(PretrainConfig, ["--config", "audioset", *MINIMAL])
    assert (vggsound.training.batch_size, audioset.training.batch_size) == (512, 2048)
    assert (vggsound.model.fusion_attn_ratio, audioset.model.fusion_attn_ratio) == (0.25, 1.0)
    for config in (vggsound, audioset):
        assert (config.optim.blr, config.optim.epochs, config.optim.warmup_epochs) == (1.5e-4, 200, 40)
        assert (config.optim.betas, config.optim.weight_decay) == ((0.9, 0.95), 0.05)


def test_every_setting_has_a_help_text() -> None:
    from dataclasses import fields, is_dataclass
    from typing import get_type_hints

    from docstring_parser import parse_from_object

    def check(cls: type) -> None:
        classes = [base for base in cls.__mro__ if is_dataclass(base)]  # an inherited setting has its help there
        described = {p.arg_name for base in classes for p in parse_from_object(base).params if p.description}
        for f in fields(cls):
            assert f.name in described, f"{cls.__name__}.{f.name}"
            if is_dataclass(get_type_hints(cls)[f.name]):
                check(get_type_hints(cls)[f.name])

    for verb in VERBS.values():
        check(verb.config())


def test_a_failure_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    error = capsys.readouterr().err
    assert f"deepavfusion inspect: error: {tmp_path / 'nothing'}: no such file or folder" in error
    assert "Traceback" not in error


def test_the_traceback_that_the_line_offers_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object) -> int:
        raise IsADirectoryError("x.parquet")

    monkeypatch.setitem(VERBS, "inspect", replace(VERBS["inspect"], run=fail))
    assert main(["inspect", "x"]) == 1
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(IsADirectoryError):
        main(["inspect", "x"])


def test_a_check_names_its_flag() -> None:
    with pytest.raises(UsageError, match=r"--data\.flip 2\.0 must be a probability"):
        parse_arguments(PretrainConfig, [*MINIMAL, "--data.flip", "2"])


def test_words_without_a_flag_may_stand_anywhere_and_switches_need_no_value() -> None:
    verb = VERBS["evaluate classification"]
    first = parsed(verb, ["runs/a", "--data.source", "x.csv", "--out", "o"])
    assert parsed(verb, ["--data.source", "x.csv", "--out=o", "runs/a"]) == first
    config = parsed(
        VERBS["train segmentation"], ["--data.accept_changed", "--run_dir", "r", "--data.source", "x", "--from", "e"]
    )
    assert config.data.accept_changed
    assert parsed(VERBS["search"], ["-k", "3", "idx", "--exact", "query.wav"]).k == 3
    with pytest.raises(UsageError, match="unknown option runs/b"):
        parsed(verb, ["runs/a", "--data.source", "x.csv", "--out", "o", "runs/b"])
