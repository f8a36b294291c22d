-- For rollback.sql: functions of the session that carries it out. They vanish with it.
-- Says something in the window's journal, chained as dbwatch chains it.
CREATE OR REPLACE FUNCTION pg_temp.dbwatch_says(said_kind text, said text) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    w      dbwatch."window";
    at     timestamptz := clock_timestamp();
    actor  text := session_user || '@' || coalesce(host(inet_client_addr()), 'local');
    digest text;
BEGIN
    SELECT * INTO STRICT w FROM dbwatch."window" WHERE id = {window} FOR UPDATE;
    IF extract(microseconds FROM at)::bigint % 1000000 = 0 THEN
        at := at + interval '1 microsecond';
    END IF;
    digest := encode(sha256(convert_to(concat(
        '[', to_json(w.head_hash), ', ', w.last_seq + 1, ', ',
        to_json(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')), ', ', to_json(actor), ', ',
        w.epoch, ', ', to_json(said_kind), ', ', to_json(said), ']'), 'UTF8')), 'hex');
    INSERT INTO dbwatch.event (window_id, seq, at, actor, epoch, kind, body, prev_hash, hash)
    VALUES (w.id, w.last_seq + 1, at, actor, w.epoch, said_kind, said, w.head_hash, digest);
    UPDATE dbwatch."window" SET last_seq = w.last_seq + 1, head_hash = digest WHERE id = w.id;
    PERFORM pg_notify({channel}, concat(w.id, '/', w.last_seq + 1));
END $function$;
-- Whether the journal has such an event of a step, or of a revision.
CREATE OR REPLACE FUNCTION pg_temp.dbwatch_said(said_kind text, whose text, said text DEFAULT NULL) RETURNS boolean
LANGUAGE sql AS $function$
    SELECT EXISTS (SELECT FROM dbwatch.event AS e
                    WHERE e.window_id = {window}
                      AND e.kind = said_kind
                      AND whose IN (e.body::json ->> 'step', e.body::json ->> 'revision')
                      AND (said IS NULL OR e.body::json ->> 'text' = said))
$function$;
-- Whether the version table has one of these revisions.
CREATE OR REPLACE FUNCTION pg_temp.dbwatch_at(VARIADIC revisions text[]) RETURNS boolean LANGUAGE plpgsql AS $function$
DECLARE
    found boolean := false;
BEGIN
    IF to_regclass({versions}) IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE version_num = ANY ($1))', to_regclass({versions}))
           INTO found USING revisions;
    END IF;
    RETURN found;
END $function$;
-- Whether a relation (an index only where it is valid), or a column or constraint of one, is there.
CREATE OR REPLACE FUNCTION pg_temp.dbwatch_there(kind text, relation text, part text) RETURNS boolean
LANGUAGE sql AS $function$
    SELECT CASE kind
           WHEN 'column' THEN EXISTS (SELECT FROM pg_attribute AS a
                                       WHERE a.attrelid = to_regclass(relation) AND a.attname = part
                                         AND NOT a.attisdropped)
           WHEN 'constraint' THEN EXISTS (SELECT FROM pg_constraint AS c
                                           WHERE c.conrelid = to_regclass(relation) AND c.conname = part)
           WHEN 'valid index' THEN EXISTS (SELECT FROM pg_index AS i
                                            WHERE i.indexrelid = to_regclass(relation) AND i.indisvalid)
           ELSE to_regclass(relation) IS NOT NULL END
$function$;
-- The version table's revisions, as one text.
CREATE OR REPLACE FUNCTION pg_temp.dbwatch_heads() RETURNS text LANGUAGE plpgsql AS $function$
DECLARE
    found text;
BEGIN
    IF to_regclass({versions}) IS NOT NULL THEN
        EXECUTE format('SELECT string_agg(version_num, '', '' ORDER BY version_num COLLATE "C") FROM %s',
                       to_regclass({versions}))
           INTO found;
    END IF;
    RETURN coalesce(found, '');
END $function$;
-- Whether a step began or ended after that event.
CREATE OR REPLACE FUNCTION pg_temp.dbwatch_went_on(since text) RETURNS boolean LANGUAGE sql AS $function$
    SELECT EXISTS (SELECT FROM dbwatch.event AS e
                    WHERE e.window_id = {window} AND e.seq > since::bigint
                      AND e.kind IN ('step.started', 'step.done'))
$function$;
-- Whether a backfill keeps before-images of rows that were not brought back.
CREATE OR REPLACE FUNCTION pg_temp.dbwatch_kept(step text) RETURNS boolean LANGUAGE sql AS $function$
    SELECT EXISTS (SELECT FROM dbwatch.backfill AS b
                    WHERE b.window_id = {window}
                      AND b.step_id = step
                      AND b.images IS NOT NULL
                      AND b.rows_done > b.restored + b.changed + b.missing)
$function$;
