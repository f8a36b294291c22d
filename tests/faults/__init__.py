"""Twelve faults, and what has to hold of a backfill in spite of them: each row set exactly once.

`broken.py` has versions of the engine without one of its protections, `oracle.py` says what does not hold; both serve
tests/test_backfill_faults.py, where each fault is a test, and the campaign: `scene.py` is a run's table and the
application on it, `house.py` the servers, `worker.py` the process that fills, `strokes.py` what happens to it,
`run.py` one run, and `make faults` many of them.
"""
