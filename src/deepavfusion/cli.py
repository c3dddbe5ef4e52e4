"""The command line: finds the command (verb) in the table, parses its settings, and runs it.

The options of a command are the fields of its configuration dataclass, so YAML, command line and Python share one
source. Nothing here imports torch: help, version and configuration errors are immediate, and the function that does the
work is imported when its command runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped on request and can be continued, 130 interrupted, 141 the reader
of the output is gone (`... | head`).
"""

from __future__ import annotations

import difflib
import io
import json
import os
import select
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from deepavfusion import verbs
from deepavfusion.arguments import UsageError
from deepavfusion.lock import sole_writer
from deepavfusion.models.tasks import TASK_MODELS
from deepavfusion.verbs.verb import Verb, lock_of, parsed
from deepavfusion.version import __version__

TRACEBACK = "DEEPAVFUSION_TRACEBACK"
"""Variable of the environment; set, errors come with their traceback."""
UNREAD = 141
"""Exit code of a command whose output nobody reads any more: 128 and SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be UTF-8; standard error writes it like this
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        parsed = parse(sys.argv[1:] if argv is None else argv)
        code = parsed if isinstance(parsed, int) else execute(*parsed)
    except BrokenPipeError:
        code = UNREAD
    except OSError as error:  # `execute` tells of what fails in a verb; this is of writing help and the like
        if os.environ.get(TRACEBACK):
            raise
        code = _fail("deepavfusion", str(error), 1)
    except SystemExit as exit_:
        if not isinstance(exit_.__context__, BrokenPipeError):
            raise
        code = UNREAD  # what rich makes of it
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # now: at its end Python would try it, and complain in its own words
    except BrokenPipeError:
        code = UNREAD
    except OSError as error:  # a full disk, for one
        code = _fail("deepavfusion", f"standard output: {error}", 1)
    _discard_output()
    return code


def parse(words: Sequence[str]) -> tuple[str, Any] | int:
    """A verb and its configuration, or, where that was all or is wrong and has been said, the exit code."""
    if list(words) in (["--version"], ["-V"]):
        print(f"deepavfusion {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    try:
        name, options = _name_verb(words)
    except UsageError as error:
        return _fail("deepavfusion", str(error), 2)
    try:
        return name, parsed(VERBS[name], options, f"deepavfusion {name}")
    except UsageError as error:
        return _fail(f"deepavfusion {name}", str(error), 2)
    except SystemExit as exit_:  # --help and --print_config
        return int(exit_.code or 0)


def execute(name: str, config: Any) -> int:
    """Run a verb; a failure that the user can do something about is one line, not a traceback."""
    verb = VERBS[name]
    place = lock_of(config) if verb.sole_writer else None
    try:
        with nullcontext() if place is None else sole_writer(place[0], "--out", place[1]):
            return verb.run(config)
    except KeyboardInterrupt:
        return _fail(f"deepavfusion {name}", "interrupted", 130)
    except (ValueError, OSError, ArithmeticError) as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            raise
        if os.environ.get(TRACEBACK):
            raise
        return _fail(f"deepavfusion {name}", f"{error} ({TRACEBACK}=1 shows where)", 1)


def _name_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """The verb that the first one or two words name, and the words after it.

    `evaluate RUN ...` is the evaluation of the run's task.

    Raises:
        UsageError: there is no such verb, or no trained model in the run.
    """
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in VERBS:
            return name, list(words[length:])
    group = [name for name in VERBS if name.split()[0] == words[0]]
    if words[0] == "evaluate" and len(words) > 1 and not words[1].startswith("-"):
        return f"evaluate {_task_of(words[1])}", list(words[1:])
    if group and (len(words) == 1 or words[1].startswith("-")):
        raise UsageError(f"{words[0]} needs a second word: {', '.join(group)}")
    raise UsageError(f"{_unknown_verb(words)} Commands: {', '.join(VERBS)}")


def _task_of(run: str) -> str:
    """The task of the model in a run, read from its configuration alone."""
    for folder in (os.path.join(run, "model"), run):
        path = os.path.join(folder, "config.json")
        try:
            with open(path, encoding="utf-8") as file:
                kind = json.load(file)["model"]
        except OSError:
            continue
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"evaluate {run}: {path} is damaged or no model's configuration ({error})") from error
        if task := next((task for task, name in TASK_MODELS.items() if name == kind), None):
            return task
        raise UsageError(f"evaluate {run}: holds {kind}, which no task trains; train a task first, or name the task")
    tasks = ", ".join(name for name in VERBS if name.startswith("evaluate "))
    raise UsageError(f"evaluate {run}: no trained model there; give a finished run, or name the task: {tasks}")


def _overview() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            f"deepavfusion {__version__}: audio-visual learning with early-fusion transformers",
            "",
            *lines,
            "",
            "deepavfusion evaluate RUN finds the task by the run's model.",
            "",
            "deepavfusion COMMAND --help lists a command's settings; deepavfusion --version prints the version.",
        ]
    )


def _unknown_verb(words: Sequence[str]) -> str:
    close = difflib.get_close_matches(" ".join(words[:2]), VERBS, n=1, cutoff=0.4)
    close = close or difflib.get_close_matches(words[0], VERBS, n=1, cutoff=0.4)
    return f"unknown command {words[0]!r}{f', did you mean {close[0]!r}?' if close else '.'}"


def _demo_config() -> type:
    from deepavfusion.demo import DemoConfig

    return DemoConfig


def _demo(config: Any) -> int:
    from deepavfusion.demo import demo

    return demo(config, main)


VERBS: dict[str, Verb] = {
    **verbs.VERBS,
    "demo": Verb("try the whole package on generated clips, with a report", _demo_config, _demo),
}
"""All commands: the verbs, and the demo, which calls `main` for each of its stages."""


def nobody_reads() -> bool:
    """Whether standard output or error is a pipe that has been closed at its other end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                return True
        except (AttributeError, OSError, ValueError):  # no such stream, none of a file, or a system without poll
            continue
    return False


def _discard_output() -> None:
    """Send nowhere what is still buffered and cannot be written."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _fail(program: str, message: str, code: int) -> int:
    print(f"{program}: error: {message}", file=sys.stderr)
    return code
