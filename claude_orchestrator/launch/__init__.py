"""Where instances run: as processes of this machine, or simulated."""
