"""Everything that knows the `claude` program: its events, its counts, its slash commands."""
