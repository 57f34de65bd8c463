"""Counts one answer of the API as it passes, and charges the attempt that asked for it."""

from __future__ import annotations

import aiohttp
from aiohttp import hdrs

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.bedrock import paths as bedrock
from claude_orchestrator.gateway.bedrock.event_stream import CONTENT_TYPE
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.unanswered import ChargeUnanswered, Most, charged_unanswered, completed
from claude_orchestrator.gateway.usage_reader import answer_meter
from token_budget.models import Hold

SESSION = "x-claude-code-session-id"  # of the claude that asks, which a tool of the instance may have started


class AnswerCount:
    """The count of one answer. `most` is what its request can use, with a name that no other answer has.

    On Bedrock the model is the one that the path names: the price depends on its region, which the answer leaves out.
    `is_exact`: the answer's usage is all that is billed. `unanswered` decides on one that has not begun.
    """

    def __init__(
        self,
        client: Client,
        hold: Hold | None,
        answer: aiohttp.ClientResponse,
        most: Most,
        *,
        is_exact: bool = True,
        unanswered: ChargeUnanswered = ChargeUnanswered.BOUND,
    ) -> None:
        self._client = client
        self._hold = hold
        self._most = most
        self._is_exact = is_exact
        self._unanswered = unanswered
        path = answer.url.raw_path  # below whatever base
        self._model = bedrock.model_of(path[path.rfind("/model/") :]) if "/model/" in path else ""
        self._id = self._name = ""
        self._session_id = answer.request_info.headers.get(SESSION)
        self._sender = Sender.of(answer.request_info.headers)
        kind = answer.headers.get(hdrs.CONTENT_TYPE, "").lower()
        self.is_document = "event-stream" not in kind and not kind.startswith(CONTENT_TYPE)
        encoding = answer.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
        self._meter = answer_meter(encoding, in_frames=kind.startswith(CONTENT_TYPE))

    def feed(self, chunk: bytes) -> None:
        """The next bytes have come."""
        self._charge(self._meter.feed(chunk))

    def close(self, *, whole: bool) -> ApiUsage | None:
        """The answer has ended, `whole` or not.

        An answer that does not state its usage counts with all that was held for it: the API billed something.
        """
        usage, most = self._meter.close(), self._most
        if usage is None:
            unknown = most.usage._replace(whole=True) if whole else charged_unanswered(most, self._unanswered)
            self._client.attempt.used(unknown._replace(**self._sender._asdict()), self._hold)
            return None
        usage = usage._replace(id=usage.id or most.usage.id)
        is_broken = usage.cut and not usage.failed
        if not usage.told or (is_broken and self._unanswered is ChargeUnanswered.BOUND):
            usage = completed(usage, most)
        self._charge(usage)
        return usage

    def _charge(self, usage: ApiUsage | None) -> None:
        if usage is None or not usage.id:
            return
        if usage.id != self._id:
            self._id = usage.id
            self._name = self._client.name_of(usage.id, self._most.usage.id)
        exact = usage.exact and self._is_exact
        model = self._model or usage.model
        known = {"session_id": self._session_id, **self._sender._asdict()}
        named = usage._replace(id=self._name, exact=exact, model=model, **known)
        self._client.attempt.used(named, self._hold)
