"""The gateways on the nodes of a cluster: each forwards its own traffic, and the driver's budgets decide."""
