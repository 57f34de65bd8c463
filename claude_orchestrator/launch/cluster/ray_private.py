"""The names of Ray that it does not document, because nothing that it documents does the same.

No other module uses such names. If a version of Ray lacks one, importing this module raises ImportError.
"""

from __future__ import annotations

import ray

try:
    from ray._private import ray_constants, worker
    from ray._private.state import state

    NAMES = (state.get_draining_nodes, worker.print_to_stdstream, ray_constants.NUM_REDIS_GET_RETRIES)
except (ImportError, AttributeError) as error:
    raise ImportError(f"Ray {ray.__version__} does not fit: {error}", name="ray") from None


def draining() -> frozenset[str]:
    """The ids of the nodes that are being drained. The documented lists of nodes do not say so."""
    return frozenset(state.get_draining_nodes())


def keep_off_stdout() -> None:
    """Print no messages about the end of workers: standard output carries data. Ray has no option for that."""
    worker.print_to_stdstream = lambda *data, **how: None


def connect_once() -> None:
    """Try only once to connect, which takes half a minute. Ray reads its variable for that when it is imported."""
    ray_constants.NUM_REDIS_GET_RETRIES = 1
