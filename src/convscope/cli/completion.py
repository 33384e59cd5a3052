"""``convscope completion``: what a shell needs to complete commands, networks, flags and values."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the script with which a shell completes convscope's commands, networks, flags and values.

    Args:
        shell: Whose script.
    """
    from convscope.cli.completing import SCRIPTS, table
    from convscope.cli.main import COMMANDS, app

    words = table(app, {name: text for name, (text, *_) in COMMANDS.items()})
    print(SCRIPTS[shell](words), end="")
