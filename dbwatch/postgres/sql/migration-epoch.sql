-- The window's epoch now. No row: this window is not in this journal.
SELECT w.epoch FROM dbwatch."window" AS w WHERE w.id = {window}::uuid
