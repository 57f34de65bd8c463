"""What the repository promises to a package index and to readers: one version, true addresses, links that work."""

from __future__ import annotations

import re
import runpy
import tomllib
from datetime import date

from claude_orchestrator import __version__
from tests.harness import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_no_address_of_the_project_is_invented() -> None:
    """It has none yet. When it has, this test should hold the true one."""
    texts = [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "mkdocs.yml"]
    for folder in ("claude_orchestrator", "token_budget", "docs", "configs"):
        texts += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".json", ".md")]
    for path in texts:
        assert re.findall(r"https?://\S*(?:claude|token)[-_](?:orchestrator|budget)\S*", path.read_text()) == [], path
    assert "urls" not in PROJECT


def test_the_version_has_one_source_and_a_dated_section_in_the_changelog() -> None:
    assert "version" not in PROJECT and "version" in PROJECT["dynamic"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    releases = [heading for heading in headings if heading != "[Unreleased]"]
    dated = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", release) for release in releases]
    assert all(dated) and headings[: len(headings) - len(releases)] in ([], ["[Unreleased]"])
    days = [date.fromisoformat(match[2]) for match in dated if match]
    assert days == sorted(days, reverse=True)
    assert dated[0] is not None and dated[0][1] == __version__


def test_the_changelog_has_only_the_known_kinds_of_changes() -> None:
    kinds = re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_a_package_index_gets_a_readme_without_links_into_the_repository() -> None:
    index_readme = runpy.run_path(str(ROOT / "setup.py"))["index_readme"]
    readme = (ROOT / "README.md").read_text()
    shown = index_readme(readme)
    assert re.search(r"\]\((?!https?:|#)", readme) and not re.search(r"\]\((?!https?:|#)", shown)
    assert index_readme("![a](b.svg)see [the `x` page](docs/x.md#y) [on](#on), [w](https://www.w3.org)").startswith(
        "see the `x` page [on](#on), [w](https://www.w3.org)"
    )


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """`mkdocs build --strict` checks it too, and all links; this needs no mkdocs."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(named) == sorted([*pages, "index.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])


def test_classifiers_name_what_is_tested() -> None:
    versions = [one for one in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", one)]
    tested = re.search(r"python=\[(.+)\]", (ROOT / "noxfile.py").read_text())
    assert tested and versions and all(f'"{one.rpartition(" ")[2]}"' in tested[1] for one in versions)


def test_workflows_use_pinned_actions_and_few_permissions() -> None:
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        text = path.read_text()
        used = re.findall(r"uses: (\S+)", text)
        assert used and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used), path.name
        assert "\npermissions:\n  contents: read\n" in text


def test_the_files_that_contributing_names_exist() -> None:
    named = re.findall(r"`([\w.]+/[\w./]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    made = {"build/site"}
    assert len(named) > 20 and [name for name in named if name not in made and not (ROOT / name).exists()] == []
