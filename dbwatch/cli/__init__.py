"""Door: the command line. A file per command; `commands.py` names them all."""
