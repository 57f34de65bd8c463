"""Claude on Amazon Bedrock: its paths, the framing of its answers, and the signatures of its requests."""
