"""How numbers and results are written, wherever they are shown: terminal, notebook or page."""
