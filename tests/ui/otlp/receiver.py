"""A collector of OpenTelemetry: an HTTP server on this machine that decodes what it gets."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Attributes = dict[str, Any]


def attributes(pairs: Any) -> Attributes:
    """Attributes as Python values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Receiver:
    """Collects requests. It answers each with `status`, once `go` is set."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.go = threading.Event()
        self.go.set()
        self.metrics: list[Any] = []
        self.traces: list[Any] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Decode one request, and answer it."""
        body = handler.rfile.read(int(handler.headers["content-length"]))
        if handler.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.headers.append(dict(handler.headers))
        if handler.path == "/v1/metrics":
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        elif handler.path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        else:
            raise AssertionError(handler.path)
        self.go.wait()
        handler.send_response(self.status)
        handler.send_header("content-length", "0")
        handler.end_headers()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> Iterator[Any]:
        """All spans."""
        for request in self.traces:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def resources(self) -> list[Attributes]:
        """What each request says of its sender."""
        found = [one for request in self.metrics for one in request.resource_metrics]
        return [attributes(one.resource.attributes) for one in found]

    def points(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """The latest point of each metric and set of attributes. Temporality is cumulative."""
        found: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = defaultdict(dict)
        for request in self.metrics:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in getattr(metric, metric.WhichOneof("data")).data_points:
                            key = tuple(sorted(attributes(point.attributes).items()))
                            found[metric.name][key] = point
        return found
