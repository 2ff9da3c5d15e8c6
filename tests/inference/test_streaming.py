"""Pieces together give what the whole gives: codes equal, samples to 1e-5, in both families, causal and not."""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.codec.model import FAMILIES, DeCodecNetwork, Halves
from decodec_jax.errors import UserError
from decodec_jax.inference import streaming
from decodec_jax.inference.streaming import Chunked
from decodec_jax.testing import background_clips, in_frames, random_variables, speech_clips, tiny_model

HOP = 20  # of all networks here
BARE = {"strides": (20,), "dilations": (), "decoder_blocks": 1}  # quick to compile: all but residual units


class Made(NamedTuple):
    """A network with weights at random."""

    network: DeCodecNetwork
    variables: dict
    chunked: Chunked


@functools.cache
def _made(family, groups, changes):
    network = DeCodecNetwork(tiny_model(family=family, **dict(changes)))
    variables = random_variables(network, np.zeros((1, HOP), np.float32))
    return Made(network, variables, Chunked(network, variables, groups))


def make(family, groups=(4, 1), **changes):
    return _made(family, groups, tuple(changes.items()))


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def clips(b, t):
    return speech_clips(b, t) + background_clips(b, t)


def cut(wave, seed, longest):
    """`[b, t]` in pieces of random lengths, some of them empty."""
    rng, pieces, done = np.random.default_rng(seed), [], 0
    while done < wave.shape[1]:
        pieces.append(wave[:, done : done + rng.integers(0, longest + 1)])
        done += pieces[-1].shape[1]
    return pieces


def joined(pieces, axis=1):
    return jax.tree.map(lambda *a: np.concatenate(a, axis), *pieces)


def whole(made, wave):
    """Embeddings, codes and reconstruction of the whole at once."""

    def run(network, wave):
        embeddings = network.embed(wave)
        codes = Halves(*(quantized.codes for quantized in network.quantize(embeddings)))
        return embeddings, codes, network.decode(network.vectors(codes), wave.shape[1])

    return jax.jit(lambda v, x: made.network.apply(v, x, method=run))(made.variables, wave)


def assert_there_and_back_as(expected, chunked, pieces, at_once=True):
    _, codes, wave = expected
    coded = list(chunked.encode(pieces, at_once))
    jax.tree.map(np.testing.assert_array_equal, joined(coded, axis=2), codes)
    np.testing.assert_allclose(joined(chunked.decode(coded, wave.shape[1], at_once)), wave, atol=1e-5)


def assert_unquantized_as_the_whole(made, pieces, at_once=True):
    wave = joined(pieces)
    expected = jax.jit(
        lambda v, x: made.network.apply(v, x, method=lambda network, x: network.decode(network.embed(x), x.shape[1]))
    )(made.variables, wave)
    sound = joined(made.chunked.synthesise(made.chunked.embed(pieces, at_once), at_once))
    np.testing.assert_allclose(sound[:, : wave.shape[1]], expected, atol=1e-5)


# --- causal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1])
def test_causal_pieces_of_any_lengths_give_what_the_whole_gives(family, layers):
    made = make(family, causal=True, lstm_layers=layers)
    wave = clips(2, 333)
    expected = whole(made, wave)
    assert len(np.unique(expected[1].speech)) > 4 and np.std(expected[2]) > 0.01  # worth comparing
    for pieces in (cut(wave, 0, 5), cut(wave, 1, 50), cut(wave, 2, 200), [wave]):
        for at_once in (True, False):
            assert_there_and_back_as(expected, made.chunked, pieces, at_once)


@pytest.mark.parametrize("t", [1, HOP, HOP + 1, 3 * HOP])
def test_recordings_about_as_short_as_what_is_looked_ahead(family, t):
    made = make(family, causal=True, **BARE)
    wave = clips(1, t)
    for at_once in (True, False):
        assert_there_and_back_as(whole(made, wave), made.chunked, [wave], at_once)


@pytest.mark.parametrize("layers", [0, 1])
def test_one_frame_in_codes_out_and_back_as_a_scan(family, layers):
    made = make(family, causal=True, lstm_layers=layers)
    wave = clips(2, 9 * HOP)
    _, codes, expected = whole(made, wave)
    coded, sounded = in_frames(made.network, made.variables, wave)
    jax.tree.map(np.testing.assert_array_equal, coded, codes)
    np.testing.assert_allclose(sounded, expected, atol=1e-5)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_stream_without_quantizers(family, at_once):
    assert_unquantized_as_the_whole(make(family, causal=True, **BARE), cut(clips(1, 333), 3, 50), at_once)


def test_each_frame_is_given_as_soon_as_all_that_it_needs_is_heard(family):
    made = make(family, causal=True, **BARE)
    heard = 0

    def microphone():
        nonlocal heard
        for piece in np.split(clips(1, 5 * HOP + 10), [HOP, 2 * HOP + 5, 3 * HOP - 1, 3 * HOP, 5 * HOP], axis=1):
            heard += piece.shape[1]
            yield piece

    given = [(heard // HOP, wave.shape[1]) for wave in made.chunked.decode(made.chunked.encode(microphone()))]
    full = {"waveform": (1, 2, 3, 5, 5), "spectral": (2, 3, 5, 5, 5)}[family]  # frames heard, at the end of each
    assert given == [(frames, HOP) for frames in (*full, 5)]


def test_a_stream_does_not_hear_the_one_before(family):
    made = make(family, causal=True, **BARE)
    wave = clips(1, 4 * HOP)
    expected = whole(made, wave)
    for _ in range(2):
        assert_there_and_back_as(expected, made.chunked, [wave])


def test_who_waits_compiles_two_sizes_whatever_comes(family):
    network, variables, _ = make(family, causal=True, **BARE)
    seen, chunked = set(), Chunked(network, variables, groups=(16, 4, 1))
    apply = chunked._apply

    def counting(variables, piece, **options):
        seen.add(jax.tree.leaves(piece)[0].shape[1])
        return apply(variables, piece, **options)

    chunked._apply = counting
    for pieces in ([clips(1, 37 * HOP)], np.split(clips(1, 21 * HOP), 21, axis=1)):
        assert sum(c.speech.shape[2] for c in chunked.encode(pieces, at_once=False)) * HOP == joined(pieces).shape[1]
    assert seen - {1} == {16, 4}  # 1: what `_fresh` only traces


# --- latency ----------------------------------------------------------------------------------------------------------


def test_latency_is_a_frame_and_what_is_looked_ahead_or_the_whole_recording(family):
    config = tiny_model(family=family, causal=True)
    assert streaming.latency(config) == {"waveform": 1, "spectral": 2}[family] * HOP
    assert streaming.latency(tiny_model(family=family)) is None


def test_latency_is_all_that_a_sample_waits_for_and_no_more(family):
    """A sample hears what comes less than `latency` after it, but for what a window's foot hides, and nothing more."""
    made = make(family, causal=True, lstm_layers=0)
    waits = streaming.latency(made.network.config)
    unquantized = Halves(*[jnp.zeros(2, jnp.int32)] * 2)
    run = jax.jit(lambda v, x: made.network.apply(v, x, unquantized, method="take_apart").mixture)
    wave = clips(1, 12 * HOP)
    before, last = np.asarray(run(made.variables, wave)), 8 * HOP - 1  # the last of a frame is waited for longest
    wave[0, last] += 1
    changed = np.flatnonzero((run(made.variables, wave) != before)[0])
    assert last - waits < changed[0] <= last - waits + 2


def test_the_model_for_small_machines_answers_within_50_ms():
    spec = importlib.util.spec_from_file_location("variants", Path(__file__).parents[2] / "configs/decodec.py")
    variants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(variants)
    model = variants.get_config("light").model
    assert streaming.latency(model) == 640 <= 0.05 * model.sample_rate


# --- non-causal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
def test_chunks_give_what_the_whole_gives(family, layers):
    made = make(family, (3, 1), lstm_layers=layers)
    wave = clips(2, 607)  # 31 frames; windows are of 7 or more
    expected = whole(made, wave)
    for pieces in (cut(wave, 4, 90), [wave]):
        assert_there_and_back_as(expected, made.chunked, pieces)


def test_chunks_without_quantizers(family):
    assert_unquantized_as_the_whole(make(family, (3, 1), **BARE), cut(clips(2, 607), 5, 90))


@pytest.mark.parametrize("t", [1, 99, 101, 139, 141])
def test_recordings_about_as_long_as_a_window(family, t):
    made = make(family, (3, 1), **BARE)
    wave = clips(1, t)
    assert_there_and_back_as(whole(made, wave), made.chunked, cut(wave, 6, 90))


@pytest.mark.parametrize(("layers", "groups"), [(1, (16, 4, 1)), (3, (5, 1)), (2, (1,))])
def test_one_sweep_more_than_layers_is_enough_for_any_size_of_chunks(family, layers, groups):
    made = make(family, groups, lstm_layers=layers, **BARE)
    wave = clips(1, 27 * HOP)
    embeddings, *_ = whole(made, wave)
    chunked = joined(made.chunked.embed([wave]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), chunked, embeddings)


@pytest.mark.parametrize("sizes", [
    {"strides": (2, 10), "kernel": 3, "encoder_blocks": 2, "decoder_blocks": 1},
    {"strides": (5, 4), "kernel": 5, "encoder_blocks": 1, "decoder_blocks": 2},
])  # fmt: skip
@pytest.mark.parametrize("stage", ["encoder front", "encoder back", "decoder front", "decoder back"])
def test_context_is_what_convolutions_hear_and_no_more(rng, family, stage, sizes):
    config = tiny_model(family=family, lstm_layers=0, **sizes)
    side, method = stage.split()
    module = {"encoder": FAMILIES[family].Encoder, "decoder": FAMILIES[family].Decoder}[side](config)
    given = np.zeros((1, 15 * HOP) if side == "encoder" else (1, 15, config.latent), np.float32)
    variables = random_variables(module, given)
    if method == "back":
        given = np.zeros(jax.eval_shape(lambda x: module.apply(variables, x, method="front"), given).shape)
    frames = rng.standard_normal((15, given.size // 15)).astype(np.float32)
    run = jax.jit(lambda x: module.apply(variables, x.reshape(given.shape), method=method).reshape(15, -1))
    before = np.asarray(run(frames))  # done with before the frames change
    frames[7] += 1
    moved = np.flatnonzero((run(frames) != before).any(axis=1))
    context = getattr(getattr(FAMILIES[family].passes(config), side), method)
    assert max(7 - moved[0], moved[-1] - 7) == context < 7


# --- what is refused, and what is said --------------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_line(family, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda buffering: open("/dev/full", "r+b", buffering))
    with pytest.raises(UserError, match=r"is full after 0 MB: No space left on device; set TMPDIR"):
        list(make(family, (3, 1), lstm_layers=2).chunked.encode([clips(1, 139)]))


def test_what_cannot_be_streamed_is_refused(family):
    network, variables, chunked = make(family, causal=True, **BARE)
    for start in (streaming.encoder_state, streaming.decoder_state):
        with pytest.raises(UserError, match="not causal"):
            start(*make(family, (3, 1), **BARE)[:2])
    with pytest.raises(UserError, match="21 samples is not a whole number of frames of 20"):
        streaming.encode_step(network, variables, {}, np.zeros((1, 21), np.float32))
    for method in (chunked.encode, chunked.embed):
        with pytest.raises(UserError, match="samples are int64"):
            list(method([np.zeros((1, 320), np.int64)]))
        with pytest.raises(UserError, match=r"\[b, n\].* shape \(320,\)"):
            list(method([np.zeros(320, np.float32)]))


def test_a_network_keeps_nothing_unless_asked_to(family):
    network, variables, _ = make(family, causal=True)
    assert set(variables) == {"params", "codebook"}
    wave = jax.ShapeDtypeStruct((1, HOP), jnp.float32)
    _, kept = jax.eval_shape(lambda v, x: network.apply(v, x, mutable=["intermediates"]), variables, wave)
    assert not kept
