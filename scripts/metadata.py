"""Addresses in the package's metadata, all from one setting: the owner of the repository.

Hatchling runs it at each build. The README's links are relative, so that they work in a checkout;
on PyPI they have to be absolute, its pictures too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: ](path) and ![...](path), without addresses and anchors.
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<path>[^)]+)\)")


def absolute_links(text: str, owner: str, version: str) -> str:
    """Makes the relative links of a page absolute: pictures to the file, others to its page.

    Args:
        text (str): The page, in Markdown.
        owner (str): The owner of the repository.
        version (str): The tag that the links lead to.

    Returns:
        str: The page.
    """

    def absolute(match: re.Match[str]) -> str:
        picture = match["picture"]
        site = "https://raw.githubusercontent.com" if picture else "https://github.com"
        tree = f"v{version}" if picture else f"blob/v{version}"
        address = f"{site}/{owner}/captum_groupcam/{tree}/{match['path']}"
        return f"{picture}[{match['text']}]({address})"

    return LINK.sub(absolute, text)


class Metadata(MetadataHookInterface):
    """Sets ``urls`` and ``readme``; the owner is an option of the hook in ``pyproject.toml``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets them.

        Args:
            metadata (dict): The metadata, of which `version` is known.
        """
        owner = self.config["owner"]
        source = f"https://github.com/{owner}/captum_groupcam"
        metadata["urls"] = {
            "Documentation": f"https://{owner}.github.io/captum_groupcam",
            "Source": source,
            "Issues": f"{source}/issues",
            "Changelog": f"{source}/blob/main/CHANGELOG.md",
            "Paper": "https://arxiv.org/abs/2103.13859",
        }
        root = Path(self.root)
        version = re.search(
            r'__version__ = "(.+)"', (root / "captum_groupcam" / "__init__.py").read_text("utf-8")
        )
        assert version is not None
        text = (root / "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, owner, version[1]),
        }
