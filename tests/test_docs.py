"""Pages and docstrings say what is true: their code runs, and the files and functions that they name are there."""

import doctest
import functools
import importlib
import re
from pathlib import Path

import pytest

import decodec_jax
from decodec_jax import audio, testing
from decodec_jax.inference.codec import DeCodec

ROOT = Path(__file__).parents[1]
LOADED = functools.cache(DeCodec.load)  # each page would compile anew


@pytest.mark.parametrize("page", ["python", "streams", "tokens"])
def test_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DeCodec, "load", LOADED)
    noisy = testing.speech_clips(1, 10_240) + testing.background_clips(1, 10_240)  # 32 frames at once
    audio.write("noisy.wav", noisy, 16_000)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    exec("\n".join(blocks), {})


@pytest.mark.parametrize(("module", "examples"), [("decodec_jax.inference.codec", 4), ("decodec_jax.audio", 1)])
def test_examples_in_docstrings_give_what_they_show(module, examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DeCodec, "load", LOADED)
    module = importlib.import_module(module)
    found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert len(found) >= examples
    runner = doctest.DocTestRunner()
    assert all(runner.run(test).failed == 0 for test in found)


def test_functions_that_the_method_names_are_where_it_says():
    named = re.findall(r"`([\w/]+\.py):(\w+)`", (ROOT / "docs/method.md").read_text())
    assert len(named) > 20
    for file, name in named:
        assert re.search(rf"^ *(def|class) {name}\b", (ROOT / "decodec_jax" / file).read_text(), re.MULTILINE), name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_files_that_a_page_links_to_exist(page):
    generated = {"cli.md", "contributing.md", "changelog.md", "model.md", "quickstart.md", "tokens.md", "training.md"}
    for link in re.findall(r"\]\(([^)\s#]+)", (ROOT / page).read_text()):
        if "://" not in link and Path(link).name not in generated:
            assert ((ROOT / page).parent / link).exists(), link


def test_the_version_is_the_same_everywhere():
    version = decodec_jax.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version
