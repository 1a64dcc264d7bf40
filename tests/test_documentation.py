"""The documentation is built without a warning, and what it says is true and current."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graspl.runs import RunFolder

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "results" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
RESULTS = sorted((ROOT / "results").glob("*.json"))


def script(path):
    """Return a script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(path):
    return path.relative_to(ROOT).as_posix()


def sentences(text):
    """Return a page's sentences and the cells of its tables, without code and marks."""
    text = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]\(.*?\)", "", text, flags=re.DOTALL)
    text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text)
    blocks = re.split(r"\n\s*\n|\n[-#|]|\n\d+\. |(?<=.)\|", text)
    return [each for block in blocks for each in re.split(r"(?<=[.!?:])\s+", " ".join(block.split()))]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    reference = (tmp_path / "site" / "reference" / "constraints" / "index.html").read_text()
    assert "WriteConstraint" in reference
    assert "project_gradients" in reference


def test_the_picture_of_imports_is_that_of_the_code():
    module = script(ROOT / "docs" / "draw_imports.py")
    drawn = set(re.findall(r'id="(\w+-imports-\w+)"', module.TARGET.read_text()))
    assert drawn == {f"{ours}-imports-{theirs}" for ours, theirs in module.edges()}, "run: make docs"


def test_every_room_is_in_the_list_of_the_architecture():
    (listed,) = re.findall(
        r"```text\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), flags=re.DOTALL
    )
    rooms = {each.parent.name for each in (ROOT / "src" / "graspl").glob("*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in listed} == set()
    assert set(re.findall(r"(\w+)/", listed)) - rooms <= {"tasks", "suites"}


def test_every_room_has_a_page_of_reference():
    rooms = {each.parent.name for each in (ROOT / "src" / "graspl").glob("*/__init__.py")} - {
        "commands",
        "callbacks",
    }
    assert rooms == {each.stem for each in (ROOT / "docs" / "reference").glob("*.md")}


def test_the_page_of_commands_is_what_help_shows(tmp_path):
    # In a process of its own: help lists the classes that were imported
    script = ROOT / "docs" / "write_commands.py"
    subprocess.run([sys.executable, script, tmp_path / "page.md"], check=True, timeout=300)
    shown = (tmp_path / "page.md").read_text()
    assert shown == script.with_name("commands.md").read_text(), "run: python docs/write_commands.py"


def test_every_file_of_a_run_folder_is_on_the_page_of_files():
    page = (ROOT / "docs" / "files.md").read_text()
    ours = {path.name for path in vars(RunFolder("run")).values()} - {"run"}
    assert {name for name in ours if f"`{name}`" not in page} == set()


def messages():
    """Return every text in the source, with … for what is filled in."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_of_the_page_of_troubles_are_those_of_the_code():
    rows = re.findall(
        r"^\| `(.+?)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE
    )
    assert len(rows) > 30
    known = set(messages())
    for row in rows:
        wanted = re.compile(".*".join(re.escape(part) for part in row.split("…")))
        assert any(wanted.search(each) for each in known), row


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_tests_and_files_that_a_page_names_are_there(page):
    text = page.read_text()
    functions = set(
        re.findall(r"def (test_\w+)", "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py")))
    )
    for name in re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", text):
        assert name in functions, name
    folders = "tests|configs|notebooks|benchmarks|results|src"
    for name in re.findall(rf"`((?:{folders})/[\w/.-]+?\.\w+)(?:::\w+)?`", text):
        assert (ROOT / name).exists() or "NAME" in name, name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_name_beside_a_source_file_is_in_it(page):
    for file, name in re.findall(r"`(src/[\w/]+\.py)`, `(\w+)`", page.read_text()):
        assert re.search(
            rf"\b(def|class) {name}\b|^{name} ", (ROOT / file).read_text(), flags=re.MULTILINE
        ), name


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md"], ids=named
)
def test_the_links_of_a_page_outside_the_site_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_cell_of_the_comparison_links_to_the_page_that_shows_it():
    section = README.read_text().partition("## Beside other tools\n")[2].partition("\n## ")[0]
    head, _, *rows = [line[1:-1].split("|") for line in section.splitlines() if line.startswith("|")]
    sites = {
        "TRL": "https://huggingface.co/docs/trl/", "axolotl": "https://docs.axolotl.ai/docs/",
        "LitGPT": "https://github.com/Lightning-AI/litgpt/", "inspect_ai": "https://inspect.aisi.org.uk/",
    }  # fmt: skip
    assert head == ["", "graspl", *sites]
    assert len(rows) >= 8
    for name, ours, *theirs in rows:
        links = [re.fullmatch(r"\[[^\]]+\]\(([^)]+)\)", cell)[1] for cell in (ours, *theirs)]
        assert links[0].startswith(("docs/", "tests/")), name
        assert all(link.startswith(site) for link, site in zip(links[1:], sites.values(), strict=True)), name
    assert any(ours.startswith("[no]") for _, ours, *_ in rows), "a comparison that we always win is none"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_in_a_page_is_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        compile(block, page.name, "exec")


def test_figures_in_pages_are_those_of_the_results():
    insert = script(ROOT / "results" / "insert.py")
    for page in insert.PAGES:
        assert insert.current(page.read_text()) == page.read_text(), f"{named(page)}: run: make docs"


def test_every_figure_of_a_percentage_is_a_result():
    """An interval's own 95 % is none."""
    insert = script(ROOT / "results" / "insert.py")
    for page in insert.PAGES:
        text = insert.MARK.sub("", page.read_text())
        text = re.sub(r"```.*?```|95 % interval", "", text, flags=re.DOTALL)
        assert re.findall(r"\S+ \d+ ?%", text) == [], named(page)


@pytest.mark.parametrize("file", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_where_it_comes_from_and_is_named(file):
    kept = json.loads(file.read_text())
    assert set(kept) - {"note"} == {"command", "commit", "date", "machine", "seeds", "figures"}
    insert = script(ROOT / "results" / "insert.py")
    assert any(file.name in page.read_text() for page in insert.PAGES), "no page names it"


def test_a_figure_that_no_result_has_is_refused_and_digits_are_kept(tmp_path, monkeypatch):
    insert = script(ROOT / "results" / "insert.py")
    monkeypatch.setattr(insert, "RESULTS", tmp_path)
    row = '{"run": "a", "removed": {"percent": 1.50, "low": 1, "high": 2},'
    row += ' "steps": {"mean": 3, "half_width": 0.10}, "x": null}'
    (tmp_path / "one.json").write_text('{"figures": {"rows": {"a": ' + row + "}}}")
    assert insert.current("is <!-- results: one.json rows/a/removed --><!-- /results -->.") == (
        "is <!-- results: one.json rows/a/removed -->1.50 % (1 to 2)<!-- /results -->."
    )
    shown = insert.current("<!-- results: one.json rows | run, steps, x -->old<!-- /results -->")
    assert "| a | 3 ± 0.10 | - |" in shown
    assert "old" not in shown
    assert insert.current(shown) == shown
    with pytest.raises(KeyError, match="b"):
        insert.current("<!-- results: one.json rows/b --><!-- /results -->")


def test_the_readme_is_short_and_shows_python_soon():
    text = README.read_text()
    assert len(text.split()) <= 900
    assert text[: text.index("```python")].count("\n") < 60
    long = [each for each in sentences(text) if len(each.split()) > 30]
    assert long == []


def test_the_first_screen_says_what_is_known_of_gpus():
    assert "GPU" in "\n".join(README.read_text().splitlines()[:30])


def test_the_glossary_is_short_and_defines_each_term_once():
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \|$", (ROOT / "docs" / "glossary.md").read_text(), flags=re.MULTILINE
    )
    terms = rows[2:]
    assert 0 < len(terms) <= 25
    assert len(set(terms)) == len(terms)


def test_every_decision_is_listed_and_has_its_parts():
    folder = ROOT / "docs" / "decisions"
    index, nav = (folder / "index.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in index
        assert f"decisions/{page.name}" in nav
        assert re.findall(r"^## (.*)$", page.read_text(), flags=re.MULTILINE) == [
            "Context",
            "Decision",
            "Price",
        ]


def test_the_contract_lists_that_recipes_name_are_there():
    recipes = re.findall(r"`([A-Z]+)` in `(tests/[\w/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert {name for name, _ in recipes} == {"PENALTIES", "CONSTRAINTS", "EDITS", "STARTS", "TRANSFORMS"}
    for name, file in recipes:
        assert re.search(rf"^{name} = ", (ROOT / file).read_text(), flags=re.MULTILINE), file


def test_recipes_are_at_most_ten_lines():
    for recipe in re.split(r"^## ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)[1:]:
        assert len([line for line in recipe.splitlines()[1:] if line]) <= 10, recipe.splitlines()[0]


def test_pages_of_the_site_are_in_its_menu():
    nav = yaml.safe_load(re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text()))["nav"]
    listed = set(re.findall(r"[\w/-]+\.md", json.dumps(nav)))
    made = {"changelog.md", *(f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb"))}
    assert listed == made | {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
