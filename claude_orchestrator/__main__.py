"""`python -m claude_orchestrator`."""

from claude_orchestrator.cli.main import main

if __name__ == "__main__":
    main()
