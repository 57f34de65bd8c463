"""What to run: settings, the config file, and the plan made from them."""
