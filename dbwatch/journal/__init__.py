"""What has happened here? Events, their fold, the tables, the store and its mirror."""

SCHEMA = "dbwatch"
"""Of the target database, where the journal's tables are."""
