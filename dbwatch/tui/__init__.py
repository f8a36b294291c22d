"""Door: the screens. Intents in, pictures out; no SQL here."""
