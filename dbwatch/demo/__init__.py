"""Door: an embedded server, a shop under load, and a migration ready to drive."""
