"""Measurements of speed and memory, ours and the peer's side by side in one run.

Run from the repository's root: `python -m benchmarks.simulation --quick`. Nothing here is part of the installed
package, and no test asserts a time: what is measured, and how, is in docs/benchmarks.md.
"""
