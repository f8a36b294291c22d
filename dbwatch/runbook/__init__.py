"""What should happen? The model of a runbook and the loader that names each mistake's line."""
