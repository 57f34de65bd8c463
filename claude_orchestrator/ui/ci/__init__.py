"""What continuous integration shows of a run: annotations, grouped logs, and a summary in Markdown."""
