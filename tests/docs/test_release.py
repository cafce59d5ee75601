"""What a release consists of says the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_citation_has_the_packages_version_and_licence() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for key, found in (("version", cited["version"]), ("license", cited["license"])):
        assert re.search(rf'^{key} = "(.*)"$', project, re.MULTILINE)[1] == found  # type: ignore[index]


def test_the_image_is_built_from_files_that_reach_it() -> None:
    """Whatever the Dockerfile copies is let through by .dockerignore and there."""
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (.*)$", docker, re.MULTILINE) for word in line.split()[:-1]}
    assert copied == let and all((ROOT / name).exists() for name in copied)


def test_type_hints_are_shipped() -> None:
    assert (ROOT / "src" / "dareu" / "py.typed").is_file()
