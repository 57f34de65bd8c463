"""One run: its instances, decisions, journal and ledger."""
