"""The command line: options, checks, and a run from load to exit code."""
