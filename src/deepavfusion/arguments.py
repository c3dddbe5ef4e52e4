"""Turns command-line words and YAML files into a configuration dataclass, with error messages that name the flag and
the fix.

Never imports torch. The same function serves the command line and Python code that wants a recipe:

    parse_arguments(PretrainConfig, ["--config", "tiny", "--run_dir", "runs/a", "--data.source", "videos"])
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from deepavfusion.configuration import RENAMED

Config = TypeVar("Config")

ONE_OR_SEVERAL = (
    r'Parser key "(\S+)": Does not validate against any of the Union subtypes '
    r"Subtypes: \[Literal\[(.*)\], tuple\[Literal\[\2\], \.\.\.\]\] Errors: .* Given value: (.*)"
)
"""What the parser says of a value that is none of some words, and not several of them."""
RECIPES = Path(__file__).parent / "recipes"
"""Settings of published and small runs, one YAML file each; `--config NAME` finds them by name."""


class UsageError(ValueError):
    """A command line or YAML file that does not make a configuration; the message is for the user."""


def parse_arguments(
    cls: type[Config],
    words: Sequence[str],
    prog: str = "deepavfusion",
    positional: Sequence[str] = (),
    several: bool = False,
) -> Config:
    """The configuration that options describe.

    Args:
        cls: configuration dataclass; its fields are the flags and their docstrings the help.
        words: options as on the command line; `--config` names a YAML file or a recipe, later options override it. A
            switch, `--json`, is short for `--json true`, and `-k 5` for `--k 5`.
        prog: what the help calls the command.
        positional: fields that words without a flag stand for, before, between and after the options.
        several: whether the last of these fields takes any number of words.

    Raises:
        UsageError: naming the option and the fix.
        SystemExit: after --help or --print_config.
    """
    from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, set_parsing_settings

    class Parser(ArgumentParser):
        def format_help(self, *given: Any) -> str:
            return super().format_help(*given).replace("--from_ FROM_", "--from FROM")

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    places = "".join(f"{name.upper()} " for name in positional)
    places = f"{places[:-1]}... " if several else places
    usage = f"{prog} {places}[--config FILE_OR_RECIPE] [--SETTING VALUE ...]"
    parser = Parser(prog=prog, usage=usage, description=cls.__doc__, exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file with any of these settings, or the name of a recipe"
    )
    parser.add_class_arguments(cls, None)
    parser.set_defaults(_unfilled(cls))
    options = _options(cls)
    words = _with_flags(words, cls, positional, several)
    words = _with_files(_with_keywords(_with_recipes(words), options), options)
    try:
        if getattr(cls, "RECIPES", None):
            parser.set_defaults(_recipe_defaults(cls, parser, words))
        values = parser.parse_args(words)
    except ArgumentError as error:
        raise UsageError(_explain(str(error), options)) from error
    if several:
        values[positional[-1]] = tuple(map(_unquoted, values[positional[-1]]))
    return _build(cls, values)


def _build(cls: type, values: Any, prefix: str = "") -> Any:
    """The dataclass from parsed values; a failed check is told with the flag that its message begins with."""
    hints = get_type_hints(cls)
    arguments = {
        f.name: _build(hints[f.name], values[f.name], f"{prefix}{f.name}.")
        if is_dataclass(hints[f.name])
        else values[f.name]
        for f in fields(cls)
    }
    try:
        return cls(**arguments)
    except UsageError:
        raise
    except ValueError as error:
        flag = f"--{prefix}" if re.split("[ .]", str(error))[0] in arguments else ""
        raise UsageError(f"{flag}{error}") from error


def _options(cls: type, prefix: str = "") -> list[str]:
    """All flags of a configuration, without their dashes."""
    hints = get_type_hints(cls)
    names = []
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            names += _options(hints[f.name], f"{prefix}{f.name}.")
        else:
            names.append(prefix + f.name)
    return names


def _unfilled(cls: type, prefix: str = "") -> dict[str, None]:
    """Flags of settings that follow from others where they are not given: not given, as they are to begin with.

    The default of a section is an object, in which they are filled in already.
    """
    hints = get_type_hints(cls)
    found: dict[str, None] = {f"{prefix}{name}": None for name in getattr(cls, "FILLED_IN", ())}
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            found |= _unfilled(hints[f.name], f"{prefix}{f.name}.")
    return found


def _explain(message: str, options: Sequence[str]) -> str:
    """A parser message in one line that names the flag, with the nearest flag for an unknown one."""
    message = re.sub(r"\s*\n\s*", " ", message).replace("typing.", "")
    message = re.sub(r"\b(from)_\b", r"\1", message)
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        return f"unknown option {match[1].split('=')[0]}{_nearest(match[1], options)}"
    if match := re.search(r"Group '(\S+)' does not accept option '(\S+)'", message):
        return f"unknown setting {match[1]}.{match[2]}{_nearest(f'{match[1]}.{match[2]}', options)}"
    if match := re.match(r"Option '(\S+)' is not accepted", message):
        return f"unknown setting {match[1]}{_nearest(match[1], options)}"
    if match := re.match(r"the following arguments are required: (.*)", message):
        return f"missing {', '.join('--' + name for name in match[1].split(', '))}"
    if match := re.match(ONE_OR_SEVERAL, message):
        return f"--{match[1]} {match[3]}: takes one or several of {match[2]}"
    if match := re.match(r'Parser key "(\S+)": (.*)', message):
        return f"--{match[1]}: {match[2]}"
    return message


def _nearest(word: str, options: Sequence[str]) -> str:
    """`; did you mean --model.num_heads?`, or nothing if no option is near."""
    word = word.lstrip("-").split("=")[0]
    if word in RENAMED:
        return f"; {RENAMED[word]}"
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if not close:  # a section forgotten: blr for optim.blr
        close = [option for option in options if option.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]]
    return f"; did you mean --{close[0].removesuffix('_')}?" if close else ""


def _with_flags(words: Sequence[str], cls: type, positional: Sequence[str], several: bool) -> list[str]:
    """Every word with its flag: `DIR --json --out x` into `--source DIR --json true --out x`.

    Words beyond the positional fields stay as they are, for the parser to complain about.
    """
    switches, letters = _switches(cls), {f"-{name}" for name in _options(cls) if len(name) == 1}
    options: list[str] = []
    bare: list[str] = []
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        word = f"-{word}" if word in letters else word
        if not word.startswith("--") and word != "-h":
            bare.append(word)
            continue
        options.append(word)
        if word in ("-h", "--help") or word.startswith("--print_config") or "=" in word:
            continue
        if word in switches and not (waiting and waiting[-1].lower() in ("true", "false")):
            options.append("true")
        elif waiting and not waiting[-1].startswith("--"):
            options.append(waiting.pop())
    count = len(positional) - several
    named = [part for name, word in zip(positional, bare[:count], strict=False) for part in (f"--{name}", word)]
    rest = bare[count:]
    if several and rest:
        named, rest = [*named, f"--{positional[-1]}=[{', '.join(map(_quoted, rest))}]"], []
    return [*named, *options, *rest]


def _switches(cls: type, prefix: str = "") -> set[str]:
    """Flags of settings that are true or false, which may stand without a value."""
    found: set[str] = set()
    for name, hint in get_type_hints(cls).items():
        if hint is bool:
            found.add(f"--{prefix}{name}")
        elif isinstance(hint, type) and is_dataclass(hint):
            found |= _switches(hint, f"{prefix}{name}.")
    return found


def _quoted(word: str) -> str:
    """A YAML string in double quotes, in which nothing is taken for syntax.

    A byte of a file's name that is no UTF-8, in Python a lone surrogate, cannot be told in YAML: it is written as a
    NUL, which no name has, and its code. `_unquoted` undoes it.
    """
    word = "".join(f"\0{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in word)
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in word) + '"'


def _unquoted(word: str) -> str:
    """A file's name of several, as it was given."""
    return re.sub("\0(d[89a-f][0-9a-f]{2})", lambda match: chr(int(match[1], 16)), word)


def _with_keywords(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """`--from X` for the setting `from_`: a setting named by a word that Python keeps for itself."""
    keywords = {f"--{name.removesuffix('_')}": f"--{name}" for name in options if name.endswith("_")}
    parts = [(word.partition("=")) for word in words]
    return ["".join((keywords.get(name, name), equals, value)) for name, equals, value in parts]


def _recipe_defaults(cls: Any, parser: Any, words: Sequence[str]) -> dict[str, Any]:
    """Defaults of settings that follow from the setting `recipe`, which a first reading of the words tells."""
    from jsonargparse import ArgumentError

    quiet = [word for word in words if word not in ("--help", "-h") and not word.startswith("--print_config")]
    try:
        recipe = parser.parse_args(quiet).recipe
    except ArgumentError:  # the second reading tells what is wrong
        recipe = next(f.default for f in fields(cls) if f.name == "recipe")
    return dict(cls.RECIPES[recipe])


def _with_recipes(words: Sequence[str]) -> list[str]:
    """Replace `--config NAME` by the path of the recipe NAME, unless a file of that name exists."""
    result = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    for i, word in enumerate(result[:-1]):
        if word == "--config" and not Path(result[i + 1]).exists():
            recipe = RECIPES / f"{result[i + 1]}.yaml"
            if not recipe.is_file():
                known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
                raise UsageError(f"--config {result[i + 1]}: no such file, and no such recipe (recipes: {known})")
            result[i + 1] = str(recipe)
    return result


def _with_files(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Replace the path after `--config` by what stands in the file, once that has been looked through."""
    places = [i + 1 for i, word in enumerate(words[:-1]) if word == "--config"]
    return [_read_settings(Path(word), options) if i in places else word for i, word in enumerate(words)]


def _read_settings(path: Path, options: Sequence[str]) -> str:
    """The text of a YAML file of settings, in which every key is a setting or a section.

    Raises:
        UsageError: it cannot be read, or a key is none or stands twice; names file and line.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        text = path.read_text(encoding="utf-8-sig")
        yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" line {mark.line + 1}:" if mark is not None else ""
        raise UsageError(f"--config {path}:{place} not YAML: {error.problem or error.context}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # no text, or text with control characters
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UsageError(f"--config {path}: cannot be read: {reason}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"--config {path}: holds no settings; a line of it is NAME: VALUE")
    keywords = _check_keys(root, options, f"--config {path}")
    for index in sorted(keywords, reverse=True):  # as `_with_keywords`: from: X for the setting `from_`
        text = text[:index] + "_" + text[index:]
    return text


def _check_keys(section: Any, options: Sequence[str], place: str, prefix: str = "") -> list[int]:
    """Where in the text keys end that are a word that Python keeps for itself. Raises UsageError, naming the line."""
    sections = {name[: i + 1] for name in options for i, letter in enumerate(name) if letter == "."}
    seen, ends = set(), []
    for key, value in section.value:
        line = f"{place}: line {key.start_mark.line + 1}:"
        if key.tag.endswith(":merge"):
            for own in value.value if value.id == "sequence" else [value]:
                ends += _check_keys(own, options, place, prefix)
            continue
        if key.id != "scalar" or not key.tag.endswith(":str"):
            raise UsageError(f"{line} a setting's name must be a word, got {getattr(key, 'value', key)!s:.40}")
        name = f"{prefix}{key.value}"
        if f"{name}_" in options:
            name = f"{name}_"
            ends.append(key.end_mark.index - (key.style is not None))  # before a closing quotation mark
        if name in seen:
            raise UsageError(f"{line} {name.removesuffix('_')} is given twice")
        seen.add(name)
        if f"{name}." in sections and value.id == "mapping":
            ends += _check_keys(value, options, place, f"{name}.")
        elif f"{name}." in sections:
            inner = next(option for option in options if option.startswith(f"{name}."))
            raise UsageError(
                f"{line} {name} is a section; its settings are written below it, indented, such as {inner}"
            )
        elif name not in options:
            inner = f".{value.value[0][0].value}" if value.id == "mapping" and value.value else ""
            raise UsageError(f"{line} unknown setting {name}{_nearest(name + inner, options)}")
    return ends
