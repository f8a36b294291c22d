"""Two people at one window, each in a process of their own, and everything that may happen to them: at random.

`player.py` is a person's process, `seat.py` the referee's end of it, `scene.py` the database and the runbook,
`referee.py` what happens in a window, `oracles.py` what has to hold afterwards. `make campaign` runs many windows.
"""
