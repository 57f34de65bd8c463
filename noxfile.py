"""The daily commands: `nox -s tests`, `lint`, `types`, `docs`, `build`. Without -s, nox runs the first three."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types"]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests: `nox -s tests`, or some of them: `nox -s tests -- tests/token_budget -k hold`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def versions(session: nox.Session) -> None:
    """Run the tests with one Python, as `nox -s versions-3.13`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and the workflows; `nox -s lint -- --fix` repairs what ruff can repair."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")
    session.run("bash", ".ci/lint-github", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of product, tests and tools."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("mypy", "noxfile.py", "mkdocs_hooks.py", "setup.py")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure the branches that the fast tests reach, and check the pure modules."""
    session.install("-e", ".[dev]")
    session.run("bash", ".ci/coverage", external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site into build/site, or serve it: `nox -s docs -- serve`."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]))


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution into dist/, and check their metadata."""
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("bash", "-c", "twine check --strict dist/*", external=True)
