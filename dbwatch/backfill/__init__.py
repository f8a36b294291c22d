"""Move rows in batches: plan, pace, run."""
