"""The `claude-runs` program: see runs and change them, from another terminal."""
