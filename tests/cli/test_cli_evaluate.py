"""`decodec evaluate` and `decodec page` as people type them."""

import json

import pytest

from decodec_jax import arguments, cli
from decodec_jax.evaluation import commands
from decodec_jax.evaluation.reports import page
from decodec_jax.evaluation.suites import scoring
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.inference import codec as inference


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nobody is asked; they have tests of their own."""
    monkeypatch.setattr(scoring, "tools", lambda whisper, embedder: Tools())


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = cli.main([*map(str, arguments)])
        written = capsys.readouterr()
        return code, written.out, written.err.splitlines()

    return run


def test_tables_are_printed_and_written_suite_by_suite(run, model, monkeypatch, tmp_path):
    monkeypatch.setattr(commands.suite.charts, "draw", lambda found, out: None)  # pictures take their time
    out = tmp_path / "results"
    code, text, errors = run(
        "evaluate", "--suite", "enhancement", "reconstruction", "--data", "", "--out", out, "--limit", 1,
        "--seconds", 0.1, "--baselines", "mixture", "silence", "--model", f"ours={model}",
    )  # fmt: skip
    assert (code, errors) == (0, []) and "enhancement, all SNRs\n\n|  | mixture | silence | ours | count" in text
    assert {path.name for path in out.iterdir()} == {"enhancement", "reconstruction"}
    assert (out / "enhancement/ours_taken_apart.png").is_file()
    found = commands.read_tables(str(out))
    assert all(f"{heading}\n\n{table}" in text for heading, table in found.items()) and len(found) == 10


def test_a_run_shows_how_it_learned(run, codec, monkeypatch, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    monkeypatch.setattr(inference.DeCodec, "load", lambda path: codec)
    monkeypatch.setattr(commands.suite, "run", lambda *arguments: {"conversion, converted": "| table |"})
    code, text, _ = run("evaluate", "--suite", "conversion", "--data", "", "--out", tmp_path / "out",
                        "--model", tmp_path / "run", "--limit", 1, "--json")  # fmt: skip
    assert code == 0 and json.loads(text)["tables"] == {"conversion": {"conversion, converted": "| table |"}}
    assert (tmp_path / "out/run_curve.png").is_file()


@pytest.mark.parametrize(("options", "columns"), [
    ((), ["built-in"]), (("--baselines", "silence"), ["silence"]),
    (("--model", "built-in", "box=built-in", "--baselines", "silence"), ["silence", "built-in", "box"]),
    (("--model", "built-in", "--model", "box=built-in"), ["built-in", "box"]),
    (("--continuous",), ["built-in", "built-in, continuous"]),
])  # fmt: skip
def test_the_model_that_comes_with_the_package_is_measured_where_nothing_else_is(
    run, codec, monkeypatch, tmp_path, options, columns
):
    measured = []
    monkeypatch.setattr(inference.DeCodec, "load", lambda path: codec)
    monkeypatch.setattr(commands, "draw_separation", lambda *arguments: None)
    monkeypatch.setattr(commands.suite, "run", lambda name, systems, *rest: measured.extend(systems) or {})
    code, _, errors = run("evaluate", "--suite", "enhancement", "--data", "", "--out", tmp_path, "--limit", 1,
                          "--seconds", 0.1, *options)  # fmt: skip
    assert (code, errors, [system.name for system in measured]) == (0, [], columns)


def test_the_page_is_made_of_the_same_and_of_the_tables(run, codec, model, monkeypatch, tmp_path):
    asked = {}

    def build(codec, systems, items, out, tables, charts, converter, spoken):
        asked.update(systems=[system.name for system in systems], items=items, tables=tables, charts=charts)
        return out / "index.html"

    monkeypatch.setattr(page, "build", build)
    (tmp_path / "results/enhancement").mkdir(parents=True)
    (tmp_path / "results/enhancement/tables.md").write_text("# enhancement\n\n## enhancement, 0 dB\n\n| a |\n|---|\n")
    (tmp_path / "results/enhancement/si_sdr_per_snr.png").write_bytes(b"")
    code, _, lines = run("page", "--model", model, "--data", "", "--out", tmp_path / "page", "--seconds", 0.1,
                         "--baselines", "silence", "--tables", tmp_path / "results")  # fmt: skip
    assert (code, len(lines)) == (0, 1) and lines[0].endswith("page/index.html in a browser")
    assert asked["systems"] == ["tiny", "silence"] and len(asked["items"]) == 8
    assert asked["tables"] == {"enhancement, 0 dB": "| a |\n|---|"}
    assert list(asked["charts"]) == ["enhancement: si sdr per snr"]
    monkeypatch.setattr(inference.DeCodec, "load", lambda path: codec)
    assert run("page", "--data", "", "--out", tmp_path / "page", "--seconds", 0.1, "--continuous")[0] == 0
    assert asked["systems"] == ["built-in", "built-in, continuous"]


@pytest.mark.parametrize(("changes", "words"), [
    ({"--baselines": "bogus"}, "'bogus' is not a baseline"),
    ({"--suite": "leakage", "--baselines": "mixture"}, "measures only models; give --model, such as --model built-in"),
    ({"--baselines": ("silence", "silence")}, "are called 'silence'"), ({"--model": "a="}, "MODEL or NAME=MODEL"),
    ({"--model": "nowhere"}, "neither a bundle nor a run folder"),
    ({"--model": ("a=x", "a=y")}, "two models called 'a'"),
    ({"--baselines": "mixture", "--limit": "0"}, "the limit is 0"),
    ({"--baselines": "mixture", "--out": "/dev/null/out"}, "/dev/null/out/enhancement cannot be created"),
    ({"--baselines": "mixture", "--data": "nowhere"}, "'nowhere' is not a folder"),
])  # fmt: skip
def test_each_mistake_is_one_line(run, tmp_path, changes, words):
    given = {"--suite": "enhancement", "--data": "", "--out": tmp_path / "out"} | changes
    each = [(name, *(value if isinstance(value, tuple) else [value])) for name, value in given.items()]
    code, text, errors = run("evaluate", *(word for words in each for word in words))
    assert (code, text, len(errors)) == (2, "", 1) and words in errors[0]
    assert not (tmp_path / "out").exists()


def test_a_page_of_tables_that_are_not_there_is_refused(run, model, tmp_path):
    code, _, errors = run("page", "--model", model, "--data", "", "--out", tmp_path, "--tables", tmp_path)
    assert code == 2 and errors[0].endswith("give the folder that `decodec evaluate --out` wrote")


def test_a_suite_that_does_not_exist_is_refused_by_the_parser(run):
    with pytest.raises(SystemExit) as stopped:
        run("evaluate", "--suite", "bogus", "--data", "", "--out", "x")
    assert stopped.value.code == 2


def test_the_suites_are_those_that_there_are():
    assert set(arguments.SUITES) == set(commands.suite.SUITES)
