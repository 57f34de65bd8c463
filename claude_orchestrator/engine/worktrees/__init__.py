"""Git worktrees of instances: made at their launch, their changes kept at their end."""
