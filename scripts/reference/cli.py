"""docs/reference/cli.md: the commands as Typer has them."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

from cli.main import app
from scripts.reference.json_schema import limits
from scripts.reference.markdown import block, linked, paragraphs, table

_INTRODUCTION = """\
# Command line

`lookalike` is one program with sub-commands. This makes a collection of a folder of images and searches it:

```sh
lookalike index ~/Pictures --out images
lookalike search images --text "a dog on the beach"
```

`lookalike COMMAND --help` prints what this page has. Each command prints its result on stdout, and its log and progress
on stderr. An error is one line that ends in a [code](errors.md), such as `[collection_not_found]`."""
EXIT_STATUSES = """\
| exit status | meaning |
| --- | --- |
| 0 | success |
| 1 | an [error](errors.md) |
| 2 | invalid arguments |
| 3 | `lookalike train`: the trained encoder is worse than its base and was not written |
| 130 | interrupted; the jobs also by SIGTERM |"""
_TYPES = {str: "text", int: "integer", float: "number", Path: "path"}


def page() -> str:
    """Return the page."""
    program = typer.main.get_command(app)
    commands: dict[str, Any] = program.commands  # type: ignore[attr-defined]
    rows = [
        (f"[`lookalike {name}`](#lookalike-{name})", linked(_first_line(each)))
        for name, each in sorted(commands.items())
    ]
    general = ["## lookalike", block("text", "lookalike [OPTIONS] COMMAND [ARGUMENTS]"), *_options(program)]
    parts = [_INTRODUCTION, "## Commands", table(("command", ""), rows), "## Exit statuses", EXIT_STATUSES, *general]
    parts += [_command(name, each) for name, each in sorted(commands.items())]
    return "\n\n".join(parts) + "\n"


def _first_line(command: Any) -> str:
    return " ".join(inspect.cleandoc(command.help).partition("\n\n")[0].split())


def _command(name: str, command: Any) -> str:
    parts = [f"## lookalike {name}", block("text", _usage(name, command))]
    texts = inspect.cleandoc(command.help).split("\n\n")
    parts += [paragraphs(text) for text in texts if not text.startswith("Example:")]
    examples = [" ".join(text.removeprefix("Example:").split()) for text in texts if text.startswith("Example:")]
    parts.append(block("sh", "\n".join(examples)))
    arguments = [(f"`{_metavar(each)}`", linked(each.help)) for each in _parameters(command, "argument")]
    if arguments:
        parts.append(table(("argument", "description"), arguments))
    return "\n\n".join([*parts, *_options(command)])


def _parameters(command: Any, kind: str) -> list[Any]:
    return [each for each in command.params if each.param_type_name == kind and not each.hidden]


def _usage(name: str, command: Any) -> str:
    options = _parameters(command, "option")
    required = [f"{each.opts[0]} {each.name.upper()}" for each in options if each.required]
    arguments = [_metavar(each) for each in _parameters(command, "argument")]
    return " ".join(["lookalike", name, *arguments, *required, *(["[OPTIONS]"] if options else [])])


def _metavar(argument: Any) -> str:
    name: str = argument.metavar or argument.name.upper()
    return name + ("..." if argument.nargs == -1 else "")


def _options(command: Any) -> list[str]:
    rows = [
        (", ".join(f"`{name}`" for name in [*each.opts, *each.secondary_opts]), _value(each), _default(each),
         linked(each.help))
        for each in _parameters(command, "option")
    ]  # fmt: skip
    return [table(("option", "value", "default", "description"), rows)] if rows else []


def _value(option: Any) -> str:
    if option.is_flag:
        return ""
    if option.metavar:
        return f"`{option.metavar}`"
    kind = _without_none(option.type_descriptor.annotation)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    name = _TYPES[get_args(kind)[0] if get_origin(kind) is list else kind]
    return ", ".join(filter(None, [name, limits(option.min, option.max)]))


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        return next(each for each in get_args(kind) if each is not type(None))
    return kind


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return linked(option.show_default)
    return "" if option.is_flag or option.default is None else f"`{option.default}`"
