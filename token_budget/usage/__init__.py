"""The `token-budget` program: history, plots, profiles, forecasts."""
