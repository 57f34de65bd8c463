"""`python -m token_budget`."""

from token_budget.usage.cli import main

if __name__ == "__main__":
    main()
