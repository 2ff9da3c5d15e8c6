"""Pieces together give what the whole gives: codes equal, samples to 1e-5, in both variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.codec.decoder import Decoder
from decodec_jax.codec.encoder import Encoder
from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.errors import UserError
from decodec_jax.inference import streaming
from decodec_jax.inference.streaming import Chunked
from decodec_jax.testing import background_clips, in_frames, random_variables, speech_clips, tiny_model

HOP = 20  # of all networks here
BARE = {"patch": 10, "strides": (2,), "dilations": ()}  # every kind of layer but residual units, and quick to compile


def make(**changes):
    network = DeCodecNetwork(tiny_model(**changes))
    return network, random_variables(network, np.zeros((1, HOP), np.float32))


@pytest.fixture(scope="module")
def causal():
    network, variables = make(causal=True)
    return network, variables, Chunked(network, variables, groups=(4, 1))


@pytest.fixture(scope="module")
def bare_causal():
    network, variables = make(causal=True, **BARE)
    return network, variables, Chunked(network, variables, groups=(4, 1))


@pytest.fixture(scope="module")
def both_ways():
    network, variables = make(lstm_layers=2)
    return network, variables, Chunked(network, variables, groups=(3, 1))


@pytest.fixture(scope="module")
def bare():
    network, variables = make(**BARE)
    return network, variables, Chunked(network, variables, groups=(3, 1))


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


def whole(network, variables, wave):
    """Embeddings, codes and reconstruction of the whole at once."""

    def run(network, wave):
        embeddings = network.embed(wave)
        codes = Halves(*(quantized.codes for quantized in network.quantize(embeddings)))
        return embeddings, codes, network.decode(network.vectors(codes), wave.shape[1])

    return jax.jit(lambda v, x: network.apply(v, x, method=run))(variables, wave)


def assert_there_and_back_as(expected, chunked, pieces):
    _, codes, wave = expected
    coded = list(chunked.encode(pieces))
    jax.tree.map(np.testing.assert_array_equal, joined(coded, axis=2), codes)
    np.testing.assert_allclose(joined(chunked.decode(coded, wave.shape[1])), wave, atol=1e-5)


def assert_taken_apart_as_the_whole(network, variables, chunked, pieces, parts=streaming.PARTS, active=None):
    wave = joined(pieces)
    levels = active and Halves(*(jnp.full(wave.shape[0] + 1, n) for n in active))
    expected = jax.jit(lambda v, x: network.apply(v, x, levels, method="take_apart"))(variables, wave)
    taken = joined(chunked.take_apart(pieces, parts, active))
    assert set(taken) == set(parts)
    for part in parts:
        np.testing.assert_allclose(taken[part], getattr(expected, part), atol=1e-5)


# --- causal -----------------------------------------------------------------------------------------------------------


def test_causal_pieces_of_any_lengths_give_what_the_whole_gives(causal):
    network, variables, chunked = causal
    wave = clips(2, 333)
    expected = whole(network, variables, wave)
    assert len(np.unique(expected[1].speech)) > 4 and np.std(expected[2]) > 0.01  # worth comparing
    for pieces in (cut(wave, 0, 5), cut(wave, 1, 50), cut(wave, 2, 200), [wave]):
        assert_there_and_back_as(expected, chunked, pieces)


def test_one_frame_in_codes_out_and_back_as_a_scan(causal):
    network, variables, _ = causal
    wave = clips(2, 9 * HOP)
    _, codes, expected = whole(network, variables, wave)
    coded, sounded = in_frames(network, variables, wave)
    jax.tree.map(np.testing.assert_array_equal, coded, codes)
    np.testing.assert_allclose(sounded, expected, atol=1e-5)


def test_parts_of_a_stream_equal_those_of_the_whole_silence_settling_in_included(causal):
    assert_taken_apart_as_the_whole(*causal, cut(clips(1, 333), 3, 50))


def test_parts_of_a_stream_with_fewer_levels_or_unquantized(bare_causal):
    for active in (Halves(1, 0), Halves(0, 0)):
        assert_taken_apart_as_the_whole(*bare_causal, cut(clips(1, 333), 3, 50), active=active)


def test_each_frame_is_given_as_soon_as_it_is_heard(bare_causal):
    *_, chunked = bare_causal
    heard = 0

    def microphone():
        nonlocal heard
        for piece in np.split(clips(1, 5 * HOP + 10), [HOP, 2 * HOP + 5, 3 * HOP - 1, 3 * HOP, 5 * HOP], axis=1):
            heard += piece.shape[1]
            yield piece

    given = []
    for part in chunked.take_apart(microphone(), ("speech",)):
        given.append((heard // HOP, part["speech"].shape[1]))
    assert given == [(n, HOP) for n in (1, 2, 3, 5, 5)] + [(5, 10)]


def test_a_stream_does_not_hear_the_one_before(bare_causal):
    network, variables, chunked = bare_causal
    wave = clips(1, 4 * HOP)
    expected = whole(network, variables, wave)
    for _ in range(2):
        assert_there_and_back_as(expected, chunked, [wave])


# --- non-causal -------------------------------------------------------------------------------------------------------


def test_chunks_give_what_the_whole_gives(both_ways):
    network, variables, chunked = both_ways
    wave = clips(2, 607)  # 31 frames; windows are of 7
    expected = whole(network, variables, wave)
    for pieces in (cut(wave, 4, 90), [wave]):
        assert_there_and_back_as(expected, chunked, pieces)


def test_parts_of_chunks_equal_those_of_the_whole(bare):
    assert_taken_apart_as_the_whole(*bare, cut(clips(2, 607), 5, 90), parts=("background", "mixture"))


@pytest.mark.parametrize("t", [1, 99, 101])
def test_recordings_about_as_long_as_a_window(bare, t):
    network, variables, chunked = bare
    wave = clips(1, t)
    assert_there_and_back_as(whole(network, variables, wave), chunked, cut(wave, 6, 90))


@pytest.mark.parametrize(("layers", "groups"), [(0, (1,)), (1, (16, 4, 1)), (3, (5, 1)), (2, (1,))])
def test_one_sweep_more_than_layers_is_enough_for_any_size_of_chunks(layers, groups):
    network, variables = make(lstm_layers=layers, **BARE)
    wave = clips(1, 27 * HOP)
    embeddings, *_ = whole(network, variables, wave)
    chunked = joined(Chunked(network, variables, groups).embed([wave]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), chunked, embeddings)


@pytest.mark.parametrize(("strides", "kernel"), [((2, 5), 3), ((4, 3), 4)])
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_context_is_what_convolutions_hear_and_no_more(rng, side, strides, kernel):
    model = tiny_model(strides=strides, kernel=kernel, patch=1, lstm_layers=0)
    module, method = (Encoder(model), "front") if side == "encoder" else (Decoder(model), "back")
    one = np.zeros((1, model.hop) if side == "encoder" else (1, 1, model.latent), np.float32)
    variables = random_variables(module, one)
    frames = rng.standard_normal((13, model.hop if side == "encoder" else model.decoder_channels)).astype(np.float32)
    run = jax.jit(lambda x: module.apply(variables, x.reshape(1, -1) if side == "encoder" else x[None], method=method))
    before = np.asarray(run(frames))  # done with before the frames change
    frames[6] += 1
    moved = np.flatnonzero((run(frames) != before).reshape(13, -1).any(axis=1))
    assert max(6 - moved[0], moved[-1] - 6) == streaming.context(model) < 6


# --- what is refused, and what is said --------------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_line(both_ways, monkeypatch):
    monkeypatch.setattr(streaming.tempfile, "TemporaryFile", lambda buffering: open("/dev/full", "r+b", buffering))
    with pytest.raises(UserError, match=r"took only 0 MB: No space left on device; let TMPDIR"):
        list(both_ways[2].encode([clips(1, 139)]))


def test_what_cannot_be_streamed_is_refused(causal, both_ways):
    network, variables, chunked = causal
    for start in (streaming.encoder_state, streaming.decoder_state):
        with pytest.raises(UserError, match="not causal"):
            start(*both_ways[:2])
    with pytest.raises(UserError, match="21 samples is not a whole number of frames of 20"):
        streaming.encode_step(network, variables, {}, np.zeros((1, 21), np.float32))
    for method in (chunked.encode, chunked.take_apart):
        with pytest.raises(UserError, match=r"\[b, n\].* shape \(320,\)"):
            list(method([np.zeros(320, np.float32)]))


def test_latency_is_a_frame_or_the_whole_recording():
    assert streaming.latency(tiny_model(causal=True)) == HOP
    assert streaming.latency(tiny_model()) is None


def test_a_network_keeps_nothing_unless_asked_to(causal):
    network, variables, _ = causal
    assert set(variables) == {"params", "codebook"}
    wave = jax.ShapeDtypeStruct((1, HOP), jnp.float32)
    _, kept = jax.eval_shape(lambda v, x: network.apply(v, x, mutable=["intermediates"]), variables, wave)
    assert not kept
