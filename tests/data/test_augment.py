import numpy as np
import pytest

from decodec_jax.config import Augment, Config, Data, check
from decodec_jax.data import augment, mixing
from decodec_jax.data.mixing import Mixer, rms
from decodec_jax.errors import UserError
from tests.data.test_mixing import NO_SHARES, RATE, Waves, check_contract, noise, plain_source

EVERYTHING = Augment(
    speed=(0.8, 1.25), background_speed=(0.7, 1.4), eq=6.0, rooms=0.5, layers=0.5, synthetic=0.3
)  # fmt: skip


def example(index, changes, source=None):
    data = Data(seconds=0.25, augment=changes, **NO_SHARES)
    return Mixer(source or plain_source(), data)(index, np.random.default_rng(index))


def test_examples_keep_their_contract():
    for index in range(20):
        check_contract(example(index, EVERYTHING), RATE // 4)


def test_an_example_is_a_function_of_its_seed():
    for one, again in zip(example(3, EVERYTHING).values(), example(3, EVERYTHING).values(), strict=True):
        np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize(("change", "sides"), [
    ({"speed": (0.8, 0.9)}, {"speech"}),
    ({"background_speed": (0.8, 0.9)}, {"background"}),
    ({"eq": 6.0}, {"speech", "background"}),
    ({"rooms": 1.0}, {"speech"}),
    ({"layers": 1.0}, {"background"}),
    ({"synthetic": 1.0}, {"background"}),
])  # fmt: skip
def test_each_change_is_heard(change, sides):
    plain, changed = example(1, Augment()), example(1, Augment(**change))
    assert all(not np.array_equal(plain[side], changed[side]) for side in sides | {"mixture"})


def test_a_share_of_the_backgrounds_is_synthetic():
    source = Waves([("s", noise(9000))], [np.zeros(9000, np.float32)])
    made = [np.any(example(index, Augment(synthetic=0.4), source)["background"][0]) for index in range(60)]
    assert 0.2 < np.mean(made) < 0.6


def test_speed_moves_pitches():
    t = np.arange(RATE)
    tone = np.float32(0.1) * np.sin(2 * np.pi * 1000 / RATE * t).astype(np.float32)
    wave = example(0, Augment(speed=(1.2, 1.2)), Waves([("s", tone)], [noise(9000)]))["speech"][0]
    loudest = np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave))))) * RATE / len(wave)
    assert abs(loudest - 1200) < 5


def test_long_clips_at_another_speed_fill_the_example(monkeypatch):
    """A sample too few would loop a background from a random place, with a click in the middle."""
    long, fitted = Waves([("s", noise(9000))], [noise(5 * RATE)]), mixing.fitted

    def checked(wave, t, kind, *more):
        assert len(wave) >= t or kind == "speech"
        return fitted(wave, t, kind, *more)

    monkeypatch.setattr(mixing, "fitted", checked)
    mixer = Mixer(long, Data(seconds=2.0))
    for speed in np.linspace(0.9, 1.1, 201):
        mixer.draw(np.random.default_rng(0), "background", speed)


def test_a_response_stays_within_its_extent():
    wave = noise(4000)
    heard = augment.equalised(wave, 6.0, np.random.default_rng(0))
    gain = 20 * np.log10(np.abs(np.fft.rfft(heard)) / np.abs(np.fft.rfft(wave)))
    assert np.abs(gain).max() < 6.01 and np.ptp(gain) > 3


@pytest.mark.parametrize("index", range(4))
def test_a_room_begins_with_the_direct_sound_and_dies_away(index):
    response = augment.room(index, 16_000)
    assert np.isfinite(response).all() and 1 <= response[0] < 1.5
    assert 0.15 * 16_000 <= len(response) + 800 and len(response) <= 0.5 * 16_000
    # Schroeder's integral, over two fifths of the response: a steady fall, slower than the 24 dB of Eyring's formula
    left = np.cumsum(response[::-1] ** 2)[::-1] / np.sum(response**2)
    slope = 10 * np.log10(left[len(left) // 10] / left[len(left) // 2])
    assert 10 < slope < 24


def test_the_direct_path_of_a_room_is_as_long_as_it_is():
    """Mirrors of one wall, worked out by hand: source at 1 m, ear at 2 m, walls at 0 and 3 m."""
    away, bounces = augment._images(3.0, 1.0, 2.0, 8.0)
    heard = dict(zip(np.round(away, 6), bounces, strict=True))
    assert heard[-1.0] == 0  # the source itself
    assert heard[-3.0] == 1  # mirrored at 0, it stands at -1
    assert heard[3.0] == 1  # mirrored at 3, it stands at 5
    assert heard[5.0] == 2  # mirrored at 0, then at 3, it stands at 7


@pytest.mark.parametrize("before", [0, 300])
def test_a_room_keeps_time_and_length_and_the_level_of_the_direct_sound(before):
    """Measured responses begin some way before the direct sound, and have any level and sign."""
    impulse = np.zeros(4000, np.float32)
    impulse[1000] = 1.0
    response = np.pad(-0.3 * augment.room(0, 16_000), (before, 0))
    heard = augment.in_room(impulse, response)
    assert heard.shape == impulse.shape and heard.dtype == np.float32
    assert np.abs(heard[:1000]).max() < 1e-6 and heard[1000] == pytest.approx(1, abs=1e-5)
    assert np.abs(heard[1001:]).max() > 0.01


def test_half_of_the_rooms_are_measured_where_there_are_any():
    """The measured one is nothing but an echo: how often that is heard is how often it is drawn."""
    echo = np.zeros(801, np.float32)
    echo[0], echo[800] = 1.0, 0.5
    click = np.zeros(RATE // 4, np.float32)
    click[100] = 0.1
    source = Waves([("s", click)], [noise(9000)], rooms=[echo])
    heard = []
    for index in range(60):
        speech = example(index, Augment(rooms=1.0), source)["speech"][0]
        heard.append(bool(np.all(np.abs(speech[101:900]) < 1e-6 * speech[100])))
        assert not heard[-1] or speech[900] == pytest.approx(0.5 * speech[100], rel=1e-3)
    assert 0.3 < np.mean(heard) < 0.7


@pytest.mark.parametrize("room", [UserError("room.wav is damaged"), np.zeros(400, np.float32), noise(0)])
def test_a_measured_room_that_cannot_be_used_is_named_once_and_simulated(room, caplog):
    source = Waves([("s", noise(9000))], [noise(9000)], rooms=[room])
    mixer = Mixer(source, Data(seconds=0.25, augment=Augment(rooms=1.0), **NO_SHARES))
    for index in range(10):
        check_contract(mixer(index, np.random.default_rng(index)), RATE // 4)
    assert source.reads["room0"] > 1 and len(caplog.messages) == 1
    assert "room" in caplog.text


def test_rooms_are_never_heard_as_clips():
    room = noise(400)
    source = Waves([("s", noise(9000))], [noise(9000)], rooms=[room])
    for index in range(10):
        example(index, Augment(), source)
    assert source.reads["room0"] == 0


def test_layers_are_two_recordings():
    t = np.arange(9000)
    low, high = (np.float32(0.1) * np.sin(2 * np.pi * f / RATE * t).astype(np.float32) for f in (500, 2000))
    found = []
    for index in range(8):
        wave = example(index, Augment(layers=1.0), Waves([("s", noise(9000))], [low, high]))["background"][0]
        power = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        found.append(min(power[125], power[500]) > 0.2 * max(power[125], power[500]))
    assert any(found) and rms(wave) > 0


def test_clean_speech_alone_gets_a_noise_floor():
    source, changes = Waves([("s", np.zeros(9000, np.float32))], [noise(9000)]), Augment(noise_floor=0.5)
    low, high = augment.NOISE_FLOOR
    kept = []
    for index in range(60):
        data = Data(seconds=0.25, augment=changes, level=(-20.0, -20.0), **NO_SHARES | {"clean": 0.5})
        made = Mixer(source, data)(index, np.random.default_rng(index))
        check_contract(made, RATE // 4)
        for speech, background in zip(made["speech"], made["background"], strict=True):
            if background.any():
                assert not speech.any()
            else:
                kept.append(rms(speech))
    quiet, loud = (10 ** ((level - 20) / 20) for level in (low, high))
    heard = [level for level in kept if level]
    assert 0.3 < len(heard) / len(kept) < 0.7
    assert 0.99 * quiet < min(heard) < 2 * quiet and 0.5 * loud < max(heard) < 1.01 * loud


@pytest.mark.parametrize("name", ["speed", "background_speed"])
def test_speeds_that_cannot_be_are_named(name):
    config = Config()
    config.model.semantic = 768
    setattr(config.data.augment, name, (1.2, 0.8))
    with pytest.raises(UserError, match=rf"data.augment.{name} is"):
        check(config)
