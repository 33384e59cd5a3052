"""``python -m convscope``: the command line, which ``torchrun -m convscope`` starts as well."""

from convscope.cli.main import main

if __name__ == "__main__":
    main()
