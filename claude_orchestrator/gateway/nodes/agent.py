"""The agent of a node that also has a gateway."""

from __future__ import annotations

from collections.abc import Mapping

from claude_orchestrator.gateway.nodes.messages import MeterBegin
from claude_orchestrator.gateway.nodes.node_meter import NodeMeter, Say
from claude_orchestrator.launch.cluster.agent import NodeAgent
from claude_orchestrator.launch.cluster.wire import Begin


class MeteredAgent(NodeAgent):
    """An agent whose instances reach the API through a gateway on their node, if the run counts there."""

    def meter(self, begin: Begin, environ: Mapping[str, str], say: Say) -> NodeMeter | None:
        """The gateway, not yet open."""
        return NodeMeter(begin.meter, environ, say) if isinstance(begin.meter, MeterBegin) else None
