"""`benchmarks` is not installed: it is found in the repository, behind everything that is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
