-- For the way back on paper: takes the wheel, so that nothing of dbwatch can commit any more; ends its sessions.
BEGIN;
UPDATE dbwatch."window"
   SET epoch = epoch + 1, driver = {driver}, lease_until = clock_timestamp()
 WHERE id = {window} AND closed_at IS NULL;
UPDATE dbwatch.backfill
   SET epoch = epoch + 1
 WHERE window_id = {window} AND status IN ('running', 'restoring');
COMMIT;
DO $fence$
DECLARE
    until timestamptz := clock_timestamp() + interval '15 seconds';
    left_over text;
BEGIN
    IF NOT EXISTS (SELECT FROM dbwatch."window" WHERE id = {window} AND closed_at IS NULL) THEN
        RAISE EXCEPTION 'this window is closed: there is nothing to take back';
    END IF;
    LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT string_agg(concat(a.pid, ' (', a.application_name, ')'), ', '), count(pg_terminate_backend(a.pid))
          INTO left_over
          FROM pg_stat_activity AS a
         WHERE a.datname = current_database()
           AND a.application_name LIKE {sessions}
           AND a.pid <> pg_backend_pid();
        EXIT WHEN left_over IS NULL;
        IF clock_timestamp() > until THEN
            RAISE EXCEPTION 'sessions of dbwatch do not end: %', left_over;
        END IF;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $fence$;
