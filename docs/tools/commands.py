"""Tables of the options of our commands, written from their parsers."""

from __future__ import annotations

import re
from typing import Any

from records import table
from typer.main import get_command

from lraee.cli import app as lraee_app
from lraee_benchmarks.cli import app as bench_app
from lraee_toolchain.cli import app as export_app
from lraee_toolchain.ray.__main__ import app as ray_app

COMMANDS: dict[str, Any] = {
    "lraee-export": get_command(export_app),
    "lraee-bench": get_command(bench_app),
    "python -m lraee": get_command(lraee_app),
    "python -m lraee_toolchain.ray": get_command(ray_app),
}
"""The parser of each command."""


def subcommands(name: str) -> dict[str, Any]:
    """The subcommands of a command by their whole name, or the command itself."""
    command = COMMANDS[name]
    below = getattr(command, "commands", {})
    return {f"{name} {sub}": parser for sub, parser in below.items()} or {name: command}


def options_of(command: Any) -> set[str]:
    """Options of a command and of its subcommands, long and short."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options_of(below) for below in getattr(command, "commands", {}).values()))


def option_tables(name: str) -> str:
    """`option_table` of a command, or of each of its subcommands below a heading."""
    names = list(subcommands(name))
    if names == [name]:
        return option_table(name)
    return "\n\n".join(f"### {below.removeprefix(name).strip()}\n\n{option_table(below)}" for below in names)


def option_table(name: str) -> str:
    """What a command does, its arguments, and its options with their defaults."""
    command = {key: value for parent in COMMANDS for key, value in subcommands(parent).items()}[name]
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    usage = " ".join([name, *(_metavar(argument) for argument in arguments), "[OPTIONS]"])
    rows = [
        [_cell(_names(parameter)), _cell(parameter.help or ""), _default(parameter)]
        for parameter in command.params
        if parameter.param_type_name != "argument" and not parameter.hidden
    ]
    help_text = re.sub(r"\s+", " ", (command.help or "").partition("\f")[0]).strip()
    given = [f"- `{_metavar(argument)}`: {_cell(argument.help)}" for argument in arguments if argument.help]
    parts = [f"`{usage}`", help_text, "\n".join(given)]
    if rows:
        parts.append(table(["option", "meaning", "default"], rows, left=3))
    return "\n\n".join(part for part in parts if part)


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _names(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(parameter.opts, key=len, reverse=True))
    if parameter.secondary_opts:
        names += f" / `{parameter.secondary_opts[0]}`"
    return names


def _default(parameter: Any) -> str:
    default = parameter.default
    if default is None or callable(default) or default is False or default == () or parameter.required:
        return "required" if parameter.required else ""
    return _cell("on" if default is True else f"`{default}`")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", r"\|").replace("<", "&lt;")
