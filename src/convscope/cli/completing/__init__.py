"""What a shell completes: a table of the commands' words, and a script of it for each shell."""

from convscope.cli.completing.bash import bash_script
from convscope.cli.completing.fish import fish_script
from convscope.cli.completing.table import Table, table
from convscope.cli.completing.zsh import zsh_script

SCRIPTS = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}

__all__ = ["SCRIPTS", "Table", "table"]
