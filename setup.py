"""What `setup.cfg` can't say: the README as it is shown where there is no checkout."""

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def described():
    """Return the README with links and pictures by their addresses in the repository."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    urls = settings["metadata"]["project_urls"]
    source = re.search(r"^Source *= *(\S+)$", urls, re.MULTILINE)[1]

    def absolute(match):
        kind = "raw" if match[1] else "blob"
        return f"{match[1]}{match[2]}({source}/{kind}/main/{match[3]}"

    text = (ROOT / "README.md").read_text("utf-8")
    return re.sub(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)", absolute, text)


setup(long_description=described())
