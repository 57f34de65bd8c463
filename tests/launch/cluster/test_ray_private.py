"""The names of Ray that it does not document still mean what this package takes them for.

If a test here fails with a new version of Ray, `ray_private.py` has to learn what that version calls them.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from operator import attrgetter

import pytest

from tests.harness import ROOT
from tests.ray_nodes import WITH_RAY

pytestmark = WITH_RAY


def test_no_other_module_uses_such_names() -> None:
    for path in (ROOT / "claude_orchestrator").rglob("*.py"):
        names = [
            f"{node.module}." if isinstance(node, ast.ImportFrom) else "".join(alias.name for alias in node.names)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        private = [name for name in names if name.startswith(("ray._", "ray.autoscaler._"))]
        assert not private or path.name == "ray_private.py", (path, private)


@pytest.mark.parametrize(
    ("function", "module", "name", "text"),
    [
        ("draining", "state", "GlobalState.get_draining_nodes", "def get_draining_nodes(self) -> Dict[str, int]:"),
        ("keep_off_stdout", "worker", "listen_error_messages", " print_to_stdstream("),
        ("connect_once", "node", "Node", "ray_constants.NUM_REDIS_GET_RETRIES"),
    ],
)
def test_ray_still_has_what_a_function_relies_on(function: str, module: str, name: str, text: str) -> None:
    from claude_orchestrator.launch.cluster import ray_private

    source = inspect.getsource(attrgetter(name)(import_module(f"ray._private.{module}")))
    assert hasattr(ray_private, function)
    assert text in source, f"Ray has changed: {function} of ray_private.py has no effect any more"
