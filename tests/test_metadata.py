"""What a release says of itself: metadata, citation, workflows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import captum_groupcam

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metadata() -> str:
    """The metadata as a build writes it."""
    command = [sys.executable, "-m", "hatchling", "metadata"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_addresses_come_from_one_owner(metadata: str) -> None:
    owner = re.search(r'^owner = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert owner is not None
    hosts = r"https://(?:github\.com|raw\.githubusercontent\.com)"
    addresses = re.findall(rf"{hosts}/([^/\"]+)/captum_groupcam\b", metadata)
    assert set(addresses) == {owner[1]}
    assert f'"Source": "https://github.com/{owner[1]}/captum_groupcam"' in metadata


def test_the_readme_has_no_relative_link_on_pypi(metadata: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", metadata)
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)
    page = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    version = captum_groupcam.__version__
    for picture in pictures:
        assert (ROOT / picture).is_file()
        assert f"/captum_groupcam/v{version}/{picture})" in metadata


def test_the_citation_has_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(rf"^version: {re.escape(captum_groupcam.__version__)}$", citation, re.M)


@pytest.mark.parametrize(
    "path",
    [
        *sorted((ROOT / ".github").rglob("*.yml"), key=str),
        ROOT / "CITATION.cff",
        ROOT / ".pre-commit-config.yaml",
    ],
    ids=lambda path: path.name,
)
def test_it_is_yaml(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_what_the_workflows_run_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    workflows = "\n".join(
        path.read_text("utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")
    )
    targets = re.findall(r"run: make ([a-z0-9-]+)", workflows)
    assert {"test", "test-oldest", "docs", "release"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    assert "run: .ci/run" in workflows
