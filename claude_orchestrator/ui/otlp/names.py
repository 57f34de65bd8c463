"""The names that a run reports under. Those with `gen_ai` are of OpenTelemetry's semantic conventions for GenAI. Pure.

docs/metrics.md documents each of them.
"""

from __future__ import annotations

SERVICE = "claude-orchestrator"
SCOPE = "claude_orchestrator"

TOKEN_USAGE = "gen_ai.client.token.usage"
DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
# the bounds that the conventions advise
TOKEN_BOUNDS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864)
DURATION_BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
TOKEN_TYPE = "gen_ai.token.type"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
WORKFLOW = "gen_ai.workflow.name"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITTEN = "gen_ai.usage.cache_creation.input_tokens"
ERROR = "error.type"
STATUS = "http.response.status_code"

RUN = "claude_orchestrator.run.id"
REHEARSAL = "claude_orchestrator.rehearsal"
ATTEMPT = "claude_orchestrator.attempt"
STATE = "claude_orchestrator.state"
COST = "claude_orchestrator.cost_usd"
EXIT_CODE = "claude_orchestrator.exit_code"
ACTION = "claude_orchestrator.action"
REASON = "claude_orchestrator.reason"
BUDGET = "claude_orchestrator.budget"
TARGET = "claude_orchestrator.target"
WHO = "claude_orchestrator.by"

ANTHROPIC = "anthropic"


def metric_name(name: str) -> str:
    """The name of one of a run's own metrics, such as `claude_orchestrator.tokens` for `tokens_total`."""
    return f"{SCOPE}.{name.removesuffix('_total')}"
