"""What a run reports to a collector of OpenTelemetry. Needs the extra `otel`."""
