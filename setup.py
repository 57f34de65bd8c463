"""The one computed part of the package's metadata: the README as a package index shows it.

An index cannot follow a link to another file of the repository, and the repository has no public address yet. So the
build replaces such links by their text. When there is an address, make the links absolute here instead.
"""

import re
from pathlib import Path

from setuptools import setup

RELATIVE = r"\((?!https?:|#|mailto:)[^)]*\)"
NOTE = "\nThe source distribution contains the pages that this text mentions, in `docs/`.\n"


def index_readme(text: str) -> str:
    """The text of README.md without images and links that only work in the repository."""
    without_images = re.sub(rf"!\[[^\]]*\]{RELATIVE}", "", text)
    return re.sub(rf"\[([^\]]+)\]{RELATIVE}", r"\1", without_images) + NOTE


if __name__ == "__main__":
    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    setup(long_description=index_readme(readme), long_description_content_type="text/markdown")
