"""Whose key a request shows, where two requests with the same key have different signatures. Pure."""

from __future__ import annotations

from collections.abc import Mapping

SIGNATURE = "aws4-hmac-sha256 credential="


def account_of(headers: Mapping[str, str]) -> str:
    """The key of a request; of a signed one the name of the key that has signed it."""
    shown = headers.get("authorization") or ""
    if shown.lower().startswith(SIGNATURE):
        shown = shown[len(SIGNATURE) :].partition("/")[0]
    return f"{headers.get('x-api-key', '')} {shown}"
