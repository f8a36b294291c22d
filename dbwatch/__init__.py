"""Mission control for PostgreSQL migration windows, in a terminal."""

__version__ = "0.1.0"
