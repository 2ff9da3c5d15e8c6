"""What mkdocs builds beside the files of this folder: the help of the commands, the notebooks, files of the root."""

import contextlib
import io
import json
import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

from decodec_jax import arguments
from decodec_jax.weights import BUILT_IN

ROOT = Path(__file__).parents[1]
COPIED = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "model.md": "decodec_jax/weights/README.md",
    **{f"notebooks/{name}.md": f"notebooks/{name}.ipynb" for name in ("quickstart", "tokens", "training")},
}
PAGES = {source: page for page, source in COPIED.items()}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files, config):
    for page, source in COPIED.items():
        text = (ROOT / source).read_text()
        text = notebook(json.loads(text)) if source.endswith(".ipynb") else text
        files.append(File.generated(config, page, content=with_links(text, source, page)))
    files.append(File.generated(config, "cli.md", content=commands()))
    return files


def on_page_markdown(markdown, page, **_):
    source = page.file.src_uri
    return markdown if source in COPIED else with_links(markdown, f"docs/{source}", source)


def notebook(cells: dict) -> str:
    """A notebook as Markdown."""
    texts = (("".join(cell["source"]), cell["cell_type"]) for cell in cells["cells"])
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for text, kind in texts)


def commands() -> str:
    """`decodec --help`, and that of every command."""
    page = ["# Command line", arguments.PAGE.format(commands="", BUILT_IN=BUILT_IN)]
    for title, group in arguments.GROUPS.items():
        page.append(f"## {title.capitalize()}")
        page += [f"### decodec {name}\n\n```text\n{help_of(name)}```" for name in group]
    return "\n\n".join(page)


def help_of(command: str) -> str:
    os.environ["COLUMNS"] = "90"  # as wide as argparse writes it
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        arguments.parser().parse_args([command, "--help"])
    return out.getvalue()


def with_links(text: str, source: str, page: str) -> str:
    """Links between files of the repository as links between pages; files that are no pages lose the link."""

    def changed(match: re.Match) -> str:
        label, target, place = match.group(1), match.group(2), match.group(3) or ""
        if "://" in target:
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        found = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if found is None:
            return label[1:-1] if label[1:-1].strip("`") in path else f"{label[1:-1]} (`{path}`)"
        return f"{label}({posixpath.relpath(found, posixpath.dirname(page) or '.')}{place})"

    return LINK.sub(changed, text)
