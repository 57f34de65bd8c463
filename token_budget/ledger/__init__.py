"""What all runs have used, kept across runs."""
