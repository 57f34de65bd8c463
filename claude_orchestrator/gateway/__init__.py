"""The API gateway: admits requests, and counts what each response used."""
