"""A run as a web page: looked at and changed in a browser."""
