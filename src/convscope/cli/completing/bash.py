"""The script with which bash completes convscope; it needs nothing but bash 3.2."""

from convscope.cli.completing.table import ROOT, Command, Table

_SCRIPT = r"""# Completes convscope's commands, networks, flags and their values; files are bash's own.
_convscope_networks='@NETWORKS@'

_convscope() {
  local word cur="" prev="" command="" words="" files="" flags="" valued="" i n=0
  local -a line=()
  COMPREPLY=()
  # Bash takes words apart at : and =; timm:resnet18 is one word here, and --flag=value two.
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    if ((n > 0)) && [[ "$word" == :* || "${line[n-1]}" == *: ]]; then
      line[n-1]="${line[n-1]}$word"
    elif [[ "$word" != "=" ]]; then
      line[n]="$word"
      n=$((n + 1))
    elif ((i == COMP_CWORD)); then
      line[n]=""
      n=$((n + 1))
    fi
  done
  ((n > 0)) && cur="${line[n-1]}"
  ((n > 1)) && prev="${line[n-2]}"
  for ((i = 0; i < n - 1; i++)); do
    [[ -z "$command" && "${line[i]}" != -* ]] && command="${line[i]}"
  done
  case "$command" in
@COMMANDS@
    *) flags='@ROOT@' ;;
  esac
  if [[ -n "$prev" && " $valued " == *" $prev "* ]]; then
    words=""
    case "$command $prev" in
@VALUES@
      *) return ;;
    esac
  elif [[ "$cur" == -* ]]; then
    words="$flags"
    files=""
  elif [[ -z "$command" ]]; then
    words='@NAMES@'
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [[ "$cur" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
    prev="${cur%"${cur##*:}"}"
    for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do
      COMPREPLY[i]="${COMPREPLY[i]#"$prev"}"
    done
    [[ -z "${COMPREPLY[0]}" ]] && COMPREPLY=()
  fi
  [[ -n "$files" ]] && while IFS= read -r word; do
    if [[ -d "$word" ]]; then
      printf -v word '%q/' "$word"
      COMPREPLY[${#COMPREPLY[@]}]="$word"
    elif [[ "$files" == all || "$word" == *.py || "$word" == *.pt2 ]]; then
      printf -v word '%q' "$word"
      COMPREPLY[${#COMPREPLY[@]}]="$word"
    fi
  done < <(compgen -f -- "$cur")
  if ((${#COMPREPLY[@]} == 1)) && [[ "${COMPREPLY[0]}" == *[:/] ]]; then
    compopt -o nospace 2>/dev/null
  fi
}

complete -o bashdefault -o default -F _convscope convscope
"""


def bash_script(table: Table) -> str:
    """Return the script for bash."""
    by_values: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    for command in table.commands:
        for flag in command.flags:
            for name in flag.names if flag.values else ():
                by_values.setdefault((flag.values, flag.also_files), []).append(f'"{command.name} {name}"')
    values = [
        f"      {'|'.join(places)}) words='{' '.join(words)}'; files={'all' if files else ''} ;;"
        for (words, files), places in by_values.items()
    ]
    root = " ".join(name for flag in ROOT for name in flag.names)
    parts = {
        "NETWORKS": " ".join(table.networks),
        "COMMANDS": "\n".join(map(_case, table.commands)),
        "ROOT": root,
        "VALUES": "\n".join(values),
        "NAMES": " ".join(command.name for command in table.commands),
    }
    script = _SCRIPT
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    return script


def _case(command: Command) -> str:
    flags = " ".join(name for flag in command.flags for name in flag.names)
    valued = " ".join(name for flag in command.flags if flag.takes_value for name in flag.names)
    words = '"$_convscope_networks"' if command.takes_networks else f"'{' '.join(command.words)}'"
    files = "networks" if command.takes_networks else ""
    return f"    {command.name}) flags='{flags}'; valued='{valued}'; words={words}; files={files} ;;"
