"""What instances answered: kept in files, and handed on as lines of JSON."""
