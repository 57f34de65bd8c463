"""What Anthropic has counted for an organization, beside what the ledger has."""
