"""What are we doing, and who? The conductor, its gates, the abort."""
