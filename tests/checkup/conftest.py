"""The suites of planted faults and of healthy networks live beside the benchmarks, which use them too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
