"""How do we talk to a server? Sessions by role, server facts, SQL by name and version, the embedded server."""
