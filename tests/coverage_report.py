"""Prints the branch coverage of each package, and of the pure modules one by one; fails if they are below a threshold.

python -m tests.coverage_report PERCENT < coverage.json
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tests.harness import ROOT
from tests.test_layers import CO, FILES, IMPURE, PURE, TB, imports, part_of


@dataclass(frozen=True, slots=True)
class Coverage:
    """Statements and branches, and how many of them tests reached."""

    reached: int = 0
    all: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(self.reached + other.reached, self.all + other.all)

    @property
    def percent(self) -> float:
        return 100 * self.reached / self.all if self.all else 100.0


def coverage_of(summary: dict[str, Any]) -> Coverage:
    """The figures of one file in coverage's JSON report."""
    return Coverage(
        summary["covered_lines"] + summary["covered_branches"], summary["num_statements"] + summary["num_branches"]
    )


def is_pure(module: str) -> bool:
    """Whether the layer test holds a module to be pure."""
    named = module.removeprefix(f"{CO}.") in PURE.split()
    return named or (part_of(module) == TB and not {name.split(".")[0] for name in imports(FILES[module])} & IMPURE)


def main(least_percent: float) -> int:
    """Read coverage's JSON report from standard input; 1 if a figure of the pure modules is below the threshold."""
    files = json.load(sys.stdin)["files"]
    packages: defaultdict[str, Coverage] = defaultdict(Coverage)
    pure: dict[str, Coverage] = {}
    for module, path in FILES.items():
        found = coverage_of(files[str(path.relative_to(ROOT))]["summary"])
        packages[part_of(module)] += found
        if is_pure(module):
            pure[module] = found
    total = sum(pure.values(), Coverage())
    for name, one in sorted(packages.items()):
        print(f"{one.percent:6.1f} %  {name}")
    print("Pure modules, the lowest first:")
    for name, one in sorted(pure.items(), key=lambda item: item[1].percent):
        print(f"{one.percent:6.1f} %  {name}")
    print(f"{total.percent:6.1f} %  all {len(pure)} pure modules (threshold: {least_percent:g} %)")
    return 0 if pure and total.percent >= least_percent else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
