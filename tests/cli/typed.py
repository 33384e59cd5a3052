"""A command line as a user types it."""

from convscope.cli.main import main


def run(capsys, line):
    """The exit code, standard output and standard error of one command line."""
    try:
        main(line.split())
        code = 0
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())
