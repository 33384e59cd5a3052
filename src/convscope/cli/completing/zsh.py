"""The script with which zsh completes convscope, to be sourced or put into a folder of ``fpath``."""

from collections.abc import Iterator

from convscope.cli.completing.table import ROOT, Command, Flag, Table

_SCRIPT = r"""#compdef convscope
# Completes convscope's commands, networks, flags and their values in zsh; files are zsh's own.

_convscope_networks() {
  local -a known=(@NETWORKS@)
  compadd -a known
  _files
}

_convscope() {
  local context state line
  typeset -A opt_args
  _arguments -C @ROOT@ '1:command:->command' '*::argument:->argument'
  case $state in
    command)
      local -a commands=(
@NAMES@
      )
      _describe command commands
      ;;
    argument)
      case $words[1] in
@COMMANDS@
      esac
      ;;
  esac
}

if [[ "${funcstack[1]}" == _convscope ]]; then
  _convscope "$@"
else
  compdef _convscope convscope
fi
"""


def zsh_script(table: Table) -> str:
    """Return the script for zsh."""
    parts = {
        "NETWORKS": " ".join(map(_quoted, table.networks)),
        "ROOT": " ".join(_specifications(ROOT)),
        "NAMES": "\n".join(f"        {_quoted(f'{each.name}:{each.help}')}" for each in table.commands),
        "COMMANDS": "\n".join(map(_case, table.commands)),
    }
    script = _SCRIPT
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    return script


def _case(command: Command) -> str:
    rest = "*:network:_convscope_networks" if command.takes_networks else "*:file:_files"
    if command.words:
        rest = f"1:word:({' '.join(command.words)})"
    lines = [*_specifications(command.flags), _quoted(rest)]
    return (
        f"        {command.name})\n          _arguments " + " \\\n            ".join(lines) + "\n          ;;"
    )


def _specifications(flags: tuple[Flag, ...]) -> Iterator[str]:
    for flag in flags:
        said = flag.help.replace("\\", "").replace("[", "(").replace("]", ")").replace(":", "\\:")
        action = f"({' '.join(flag.values)})" if flag.values else "_files"
        if flag.also_files:
            action = f"{{compadd {' '.join(flag.values)}; _files}}"
        for name in flag.names:
            value = f":{name.lstrip('-')}:{action}" if flag.takes_value else ""
            yield _quoted(f"*{name}{'=' * bool(value)}[{said}]{value}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
