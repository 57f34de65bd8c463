#!/bin/sh
exec "$PYTHON" -S "$CHILD"
