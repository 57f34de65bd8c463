"""What a request is charged whose answer does not state what the API bills. Pure."""

from __future__ import annotations

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.admission import Ticket
from token_budget.api_usage import MAX_COUNT, MESSAGE, UsagePart, rest_of
from token_budget.models import NO_USAGE, Usage, Weights
from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum


class ChargeUnanswered(StrEnum):
    """What a request is charged that was sent and not answered: all that it can cost, its input, or nothing."""

    BOUND = "bound"
    INPUT = "input"
    NONE = "none"


def how_charged(chosen: ChargeUnanswered | None, *, enforces: bool) -> ChargeUnanswered:
    """What is charged for requests without an answer: by default their bound in block mode, nothing in warn mode."""
    return chosen or (ChargeUnanswered.BOUND if enforces else ChargeUnanswered.NONE)


class Most(NamedTuple):
    """The most that the API can bill for a request, and by how much its input may grow after the answer states it."""

    usage: ApiUsage
    growth_tokens: int

    def rest(self, seen: ApiUsage) -> Usage:
        """What can still be billed beyond what the answer has stated so far."""
        return rest_of(self.usage.usage, seen.usage, self.growth_tokens if seen.told else MAX_COUNT)


def most_of(ticket: Ticket, weights: Weights, name: str = "") -> Most:
    """The most that the API can bill for a request. Its input is of the kind that draws and costs most.

    A request without a hold has no bound, and counts as nothing.
    """
    tokens = ticket.input_tokens
    if ticket.hold is None:
        usage = NO_USAGE
    elif max(weights.input, weights.cache_write) < weights.cache_read:
        usage = Usage(cache_read_input_tokens=tokens, output_tokens=ticket.output_tokens)
    elif weights.input > weights.cache_write or (weights.input == weights.cache_write and ticket.cost is None):
        usage = Usage(tokens, ticket.output_tokens)
    else:
        usage = Usage(cache_creation_input_tokens=tokens, output_tokens=ticket.output_tokens)
    if ticket.cost is not None and not usage.cache_creation_input_tokens:  # in money nothing costs more
        usage += Usage(cache_creation_input_tokens=tokens)
    most = ApiUsage(name, usage, whole=False, exact=False, model=ticket.model, told=False, terms=ticket.terms)
    return Most(_for_an_hour(most), ticket.growth_tokens)


def charged_unanswered(most: Most, how: ChargeUnanswered) -> ApiUsage:
    """What a request counts as that was sent and got no answer."""
    match how:
        case ChargeUnanswered.BOUND:
            usage = most.usage.usage
        case ChargeUnanswered.INPUT:
            usage = most.usage.usage._replace(output_tokens=0)
        case ChargeUnanswered.NONE:
            usage = NO_USAGE
    return _for_an_hour(most.usage._replace(usage=usage, cut=True))


def completed(seen: ApiUsage, most: Most) -> ApiUsage:
    """An answer that left out counts, with all that the API can bill beyond those."""
    usage, bound = seen.usage + most.rest(seen), most.usage
    return _for_an_hour(seen._replace(usage=usage, model=seen.model or bound.model, terms=bound.terms))


def _for_an_hour(usage: ApiUsage) -> ApiUsage:
    written = usage.usage.cache_creation_input_tokens
    return usage._replace(parts=(UsagePart(MESSAGE, usage.model, usage.usage, written),))
