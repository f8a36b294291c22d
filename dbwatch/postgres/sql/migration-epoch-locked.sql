-- The window's epoch now, held until we commit: whoever takes over waits for that, or we see the new epoch.
SELECT w.epoch FROM dbwatch."window" AS w WHERE w.id = {window}::uuid FOR SHARE
