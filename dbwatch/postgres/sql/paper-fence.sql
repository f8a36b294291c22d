-- For rollback.sql: nothing of an older epoch can commit any more. A database has one open window.
UPDATE dbwatch."window" SET epoch = epoch + 1 WHERE closed_at IS NULL;
