-- dbwatch backfill: one question about the table under the batch's settings, timed by the server.
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
{settings};
SELECT clock_timestamp();
{question};
SELECT clock_timestamp();
COMMIT
