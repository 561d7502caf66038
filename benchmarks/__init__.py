"""Measurements: a script for each row of the table in `docs/benchmarks.md`; `run_all` runs them and writes that file.

Nothing here asserts anything. A row compares the same work done by several pieces of code. Each is measured in fresh
processes, in turns, so that memory, imports and threads of one do not touch the others (`common/rounds.py`).
`subjects/` holds what such a process runs. A timing beside other busy processes is worthless: use an idle machine.

A row that is measured by a script of its own kind takes `--json FILE` and writes `{"rows": [Row, ...]}` to it, see
`common/results.py`.
"""
