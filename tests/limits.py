"""How long a test waits for what it expects."""

# What takes longer has hung. A busy, slow machine may need a minute for what an idle one does in a second.
HUNG_S = 300.0
