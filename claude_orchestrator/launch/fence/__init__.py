"""The fence of a run on Linux: a guard process and a keeper for each instance, which nothing that it starts escapes."""
