"""The script with which fish completes convscope."""

from collections.abc import Iterator

from convscope.cli.completing.table import ROOT, Command, Flag, Table


def fish_script(table: Table) -> str:
    """Return the script for fish."""
    lines = [
        "# Completes convscope's commands, networks, flags and their values in fish; files are fish's own.",
        f"set -g __convscope_networks {' '.join(map(_quoted, table.networks))}",
        *_flags("__fish_use_subcommand", ROOT),
    ]
    for command in table.commands:
        said = _quoted(command.help)
        lines.append(f"complete -c convscope -n __fish_use_subcommand -f -a {command.name} -d {said}")
    for command in table.commands:
        lines += _of(command)
    return "\n".join(lines) + "\n"


def _of(command: Command) -> Iterator[str]:
    here = f"__fish_seen_subcommand_from {command.name}"
    if command.takes_networks:
        yield f"complete -c convscope -n {_quoted(here)} -a '$__convscope_networks'"
    if command.words:
        yield f"complete -c convscope -n {_quoted(here)} -f -a {_quoted(' '.join(command.words))}"
    yield from _flags(here, command.flags)


def _flags(condition: str, flags: tuple[Flag, ...]) -> Iterator[str]:
    for flag in flags:
        spelled = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names)
        value = ""
        if flag.takes_value:
            value = " -x" if flag.values and not flag.also_files else " -r"
        if flag.values:
            value += f" -a {_quoted(' '.join(flag.values))}"
        yield f"complete -c convscope -n {_quoted(condition)} {spelled}{value} -d {_quoted(flag.help)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
