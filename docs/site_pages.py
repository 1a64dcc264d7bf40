"""A hook of MkDocs: pages of the site that are made from files outside docs/, the notebooks and the changelog."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures that notebooks show."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    made: dict[str, str | bytes] = {"changelog.md": changes.replace("](docs/", "](")}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, resources = MarkdownExporter().from_filename(str(path))
        made |= {f"notebooks/{path.stem}_{name}": picture for name, picture in resources["outputs"].items()}
        shown = re.sub(r"!\[\w+\]\((\w+\.png)\)", rf"![Output of the cell above]({path.stem}_\1)", text)
        made[f"notebooks/{path.stem}.md"] = shown
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files
