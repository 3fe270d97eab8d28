"""Hooks of mkdocs: what the pages link to outside of `docs/` becomes part of the site.

Pages link to `results/` and `examples/` as they lie in the repository, so that the links work on GitHub too. In the
site both folders lie beside the pages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

FOLDERS = {"results": {".json", ".md", ".png"}, "examples": {".py"}}
"""Folders of the repository, and the kinds of files in them that are served."""

LINK = re.compile(rf"(\]\((?:\.\./)*)\.\./(?=(?:{'|'.join(FOLDERS)})/)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files of `FOLDERS`."""
    root = Path(config.config_file_path).parent
    for folder, suffixes in FOLDERS.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in suffixes:
                files.append(
                    File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path))
                )
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to `FOLDERS` are one folder shorter in the site, whose root is `docs/`."""
    return LINK.sub(r"\1", markdown)
