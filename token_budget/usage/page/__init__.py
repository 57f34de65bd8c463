"""The page of `token-budget serve`: what was used, against limits, and what is to come."""
