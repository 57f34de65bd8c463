"""Runs instances on the nodes of a Ray cluster. Only `ray_cluster.py` imports Ray."""
