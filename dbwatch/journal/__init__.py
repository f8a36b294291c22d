"""What has happened here? Events, their fold, the tables, the store and its mirror."""
