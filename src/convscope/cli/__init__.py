"""The command line: one file per command, each a thin layer between words and a reading.

Answers: nothing itself. Exit codes: 0 fine, 1 no batch fits, 2 bad usage or input.
"""
