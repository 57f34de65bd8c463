"""How instances share the API's prompt cache."""
