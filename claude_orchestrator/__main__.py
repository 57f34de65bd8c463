"""The program: `claude-orchestrator`, and `python -m claude_orchestrator`."""

import gc


def main() -> None:
    """The console script. What a start makes stays, so looking for garbage in it would only take time."""
    gc.disable()  # until a run begins
    from claude_orchestrator.cli.main import main as program

    program()


if __name__ == "__main__":
    main()
