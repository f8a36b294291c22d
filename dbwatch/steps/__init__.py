"""How is one kind of step done? A file per kind; `kinds.py` names them all."""
