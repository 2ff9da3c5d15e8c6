"""The listening page: its HTML is parsed here, and played in Chromium where there is one (browser.py)."""

from html.parser import HTMLParser

import browser
import matplotlib.image
import numpy as np
import pytest

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.evaluation import figures
from decodec_jax.evaluation.reports import page, spoken
from decodec_jax.evaluation.reports.spoken import Reading, Sound
from decodec_jax.evaluation.systems.base import Item, Output, System, decodec, oracle, untouched
from decodec_jax.inference.codec import DeCodec
from decodec_jax.testing import background_clips, speech_clips

RATE, T = 16_000, 8000
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Html(HTMLParser):
    """The elements as (tag, attributes), and the text. Fails if opening and closing tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.words, self._within = [], "", []
        self.feed(text)
        self.close()
        assert not self._within

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._within.append(tag)

    def handle_endtag(self, tag):
        assert tag not in VOID and self._within.pop() == tag

    def handle_data(self, data):
        self.words += data


def fails(item: Item) -> Output:
    raise RuntimeError("no weights <here>\nand more of it")


@pytest.fixture(scope="module")
def model(tiny_network) -> DeCodec:
    network, variables = tiny_network
    return DeCodec(network.config, variables["params"], variables["codebook"], step=7)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    speech, background = speech_clips(3, T), background_clips(3, T)
    return [
        Item("clip <one>", RATE, speech[0] + background[0], speech[0], background[0], 5.0, "anna", "a & b"),
        Item("clip two", RATE, speech[1] + background[1], speech[1], background[1], None, "ben", ""),
        Item("clip three", RATE, speech[2], speech[2], None, None, "anna", ""),
    ]


@pytest.fixture(scope="module")
def built(model, items, tmp_path_factory):
    """A page's folder and its parsed HTML."""
    out = tmp_path_factory.mktemp("site") / "page"
    figures.per_snr(out.parent / "snr.png", {"mixture": [figures.Point(0, 0), figures.Point(5, 5)]}, "SI-SDR, dB")
    everything = [
        decodec("tiny", model), untouched(), oracle(),
        System("failing", {"enhance": fails}),
        System("not a number", {"background": lambda item: Output(np.full(T, np.nan))}),
    ]  # fmt: skip
    tables = {"Means & counts": "| system | SI-SDR |\n|---|---:|\n| **tiny** | 1.5 <b> |\n"}
    index = page.build(model, everything, items, out, tables, {"Each SNR": out.parent / "snr.png"})
    assert index == out / "index.html"
    return out, Html(index.read_text(encoding="utf-8"))


def test_the_folder_holds_exactly_the_files_that_the_page_refers_to(built):
    out, html = built
    named = {each[key] for _, each in html.elements for key in ("src", "href") if key in each}
    inside = {name[1:] for name in named if name.startswith("#")}
    assert inside <= {each.get("id") for _, each in html.elements} and {"guide", "convert", "tables"} <= inside
    files = {name for name in named if not name.startswith("#")}
    assert not [name for name in files if ":" in name or name.startswith(("/", ".."))]
    assert files | {"index.html"} == {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    for text in ("page.css", "page.js"):
        assert "://" not in (out / text).read_text() and "url(" not in (out / text).read_text()


def test_players_have_names_and_sliders_as_long_as_their_sounds(built):
    out, html = built
    for sound, position, button in zip(html.all("audio"), html.all("input"), html.all("button"), strict=True):
        assert audio.info(out / sound["src"]).seconds == pytest.approx(float(position["max"]), abs=1e-3) == T / RATE
        assert sound["preload"] == "none" and sound["aria-label"] in button["aria-label"]
        assert sound["aria-label"] in position["aria-label"]
    names = [each["aria-label"] for each in html.all("audio")]
    assert "tiny, clip <one>" in names and "converted, clip two in the voice of anna" in names
    for image in html.all("img"):
        assert matplotlib.image.imread(out / image["src"]).size and "alt" in image


def test_every_task_has_rows_and_no_row_plays_a_sound_twice(built):
    _, html = built
    names = [each["aria-label"] for each in html.all("audio")]
    assert names.count("as recorded, clip two") == 4 and names.count("clean speech, clip two") == 2
    assert "clean speech, clip three" not in names  # the same as the recording
    assert not [name for name in names if name.startswith(("mixture", "oracle"))]  # the same as recording and truth
    titles = [each["aria-label"] for each in html.all("article")]
    assert titles.count("clip <one>") == 4 and titles[-2:] == ["clip two in the voice of anna", "clip three in the "
                                                               "voice of ben"]  # fmt: skip


def test_systems_that_fail_are_left_out_with_the_reason(built):
    _, html = built
    assert html.words.count("RuntimeError: no weights <here>") == 3 and "and more of it" not in html.words
    assert html.words.count("not finite numbers") == 3


def test_tables_and_facts_are_there(built, model):
    _, html = built
    assert len(html.all("table")) == 1 and len(html.all("td")) == 2
    for text in ("Means & counts", "1.5 <b>", "Each SNR", "Words and voice", model.fingerprint, "6.4 + 6.4 kbps"):
        assert text in html.words


def test_the_page_plays_in_a_browser_without_console_messages(built):
    out, html = built
    script = (out / "page.js").read_text()
    for control in ("audio", "button", "input", "img"):  # the elements that the script expects in each player
        assert len(html.all(control)) >= len(html.all("figure")) - 3 and (control == "img" or f'"{control}"' in script)
    if browser.DRIVER and browser.CHROMIUM:
        with browser.served(out) as url, browser.opened() as chromium:
            assert browser.faults(chromium, url) == []
            keys_play_and_switch(chromium)


def keys_play_and_switch(chromium: browser.Browser):
    state = """
    const players = [...document.querySelectorAll(".player")], on = document.activeElement.closest(".player");
    return [players.indexOf(on), players.findIndex((player) => player.classList.contains("current"))]
    """
    chromium.run("document.querySelectorAll('.player button')[0].focus()")
    chromium.press("right")
    assert chromium.run(state)[0] == 1
    chromium.press("space")
    assert chromium.run(state) == [1, 1]
    chromium.press("left", "down")
    second = chromium.run("return document.querySelectorAll('.row')[0].querySelectorAll('.player').length")
    assert chromium.run(state)[0] == second
    chromium.press("up", "left")
    assert chromium.run(state)[0] == second - 1
    chromium.run("players[0].position.value = 0.3; players[0].position.dispatchEvent(new Event('input'))")
    in_memory = "const wait = () => (players[1].local ? arguments[0]() : setTimeout(wait, 10)); wait();"
    chromium.post("execute/async", script=in_memory, args=[])
    chromium.run("players[1].button.click()")  # the next version continues from the same moment
    assert chromium.run("return players[1].audio.currentTime") >= 0.3
    assert chromium.console() == []


def test_a_page_needs_recordings_and_a_writable_folder(model, items, tmp_path):
    with pytest.raises(UserError, match="no recordings to play"):
        page.build(model, [], [], tmp_path / "page")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        page.build(model, [], items, tmp_path / "file")


def test_what_was_spoken_is_played_only_where_there_is_some(model, items, built, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_model_figures", lambda model, items, out: [])  # they take their time
    assert "Speech synthesis" not in built[1].words
    waves = speech_clips(3, T, 7)
    known, made = [Sound("recording", "of the sentence", waves[0])], [
        Sound("spoken", f"background {way}", wave) for way, wave in zip(("kept", "removed"), waves[1:], strict=True)
    ]  # fmt: skip
    spoken.save(tmp_path / "results/spoken", [
        Reading("speak", "000_sentence", "prompt at 5 dB SNR", "Good <morning>.", RATE, known, made),
        Reading("convert", "000_source in the voice of LJ", "", "", RATE, known, made[:1]),
    ])  # fmt: skip
    readings = spoken.read(tmp_path / "results")
    assert [sound.note for sound in readings[0].made] == ["background kept", "background removed"]
    np.testing.assert_allclose(readings[0].made[1].wave, waves[2], atol=1e-4)
    html = Html(page.build(model, [], items[2:], tmp_path / "page", spoken=readings).read_text(encoding="utf-8"))
    assert "Good <morning>." in html.words and "prompt at 5 dB SNR" in html.words
    names = [each["aria-label"] for each in html.all("audio")]
    assert names.count("spoken, 000_sentence") == 2 and "spoken, 000_source in the voice of LJ" in names
    assert spoken.read(tmp_path / "page") == []


def test_a_model_without_codebooks_gets_a_page_too(model, items, tmp_path):
    young = DeCodec(model.config, model.params, model.codebook, quantized=False)
    html = Html(page.build(young, [untouched()], items, tmp_path).read_text(encoding="utf-8"))
    assert "not started" in html.words and html.words.count("its codebooks have not started") == 6
    assert "This page has no recordings for it." in html.words
