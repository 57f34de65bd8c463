"""Run many headless Claude Code instances from one JSON config, inside token budgets."""

__version__ = "0.1.0"
