"""How requests share the API's prompt cache."""
