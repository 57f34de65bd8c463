"""Keeps the requests of all instances within the API's rate limits."""
