"""Settings: what cannot be is refused by name; nothing heavy is imported for them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from deepavfusion.arguments import UsageError, parse_arguments
from deepavfusion.page import serve
from deepavfusion.page.serve_config import ServeConfig


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("host", ""),
        ("port", 70000),
        ("max_upload_mib", 0),
        ("max_seconds", 1e9),
        ("max_waiting", 0),
        ("keep_minutes", 0),
        ("step_seconds", 0),
        ("hop_seconds", 1e9),
        ("batch_size", 0),
        ("index", ""),
        ("index_model", "runs/x"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{setting} "):
        parse_arguments(ServeConfig, [f"--{setting}={value}"])


def test_the_model_may_stand_without_its_flag() -> None:
    config = parse_arguments(ServeConfig, ["runs/x", "--max_upload_mib", "1.5"], positional=("model",))
    assert (config.model, config.host, config.max_upload_bytes) == ("runs/x", "127.0.0.1", 3 * 2**19)


def test_help_imports_neither_torch_nor_gradio() -> None:
    code = (
        "import sys; from deepavfusion.cli import main; main(['serve', '--help']); "
        "print(sorted({'torch', 'gradio'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_without_gradio_there_is_one_line_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r'pip install "deepavfusion\[serve\]"') as told, serve.serving(ServeConfig()):
        raise AssertionError("must not be reached")
    assert "\n" not in str(told.value)


def test_a_port_that_is_taken_and_a_host_that_is_none() -> None:
    with serve.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} at host 127.0.0.1: .*--port 0"):
            serve.listen("127.0.0.1", port)
    with pytest.raises(ValueError, match=r"^host no\.such\.host\.invalid: "):
        serve.listen("no.such.host.invalid", 0)
