"""`make bench-backfill`: what the backfill costs, and what it gains, against its rivals on the same table.

`figures.py` says what is measured and what is asked of it, `evaluation.py` judges (pure), the rest measures.
"""
