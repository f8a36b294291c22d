-- Which backends does the driver of one epoch have? By application_name; the journal's own session is among them.
SELECT a.pid, a.application_name
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND a.application_name LIKE 'dbwatch %%'
   AND strpos(a.application_name || ' ', ' ' || %(tag)s || ' ') > 0
   AND a.pid <> pg_backend_pid()
