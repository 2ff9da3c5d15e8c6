"""The codec in use: what the network gives for the whole, whatever the pieces, the batch, the rate and the levels."""

import copy
import functools
import multiprocessing
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax import testing, weights
from decodec_jax.audio import sixteen_bits
from decodec_jax.codec.model import FAMILIES, DeCodecNetwork, Halves, TakenApart, lookahead
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle
from decodec_jax.inference.alignment import aligned
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import amplitude, gain_of
from decodec_jax.inference.streaming import Chunked
from decodec_jax.inference.tokens import join

RATE = 16_000
TASKS = {"reconstruct": "both", "enhance": "speech", "background": "background", "semantic": "semantic"}


def make(family, causal) -> DeCodec:
    """Every kind of layer but residual units; groups of frames so small that short clips take several."""
    config = testing.tiny_model(family=family, causal=causal, strides=(20,), dilations=(), decoder_blocks=1)
    network = DeCodecNetwork(config)
    variables = testing.random_variables(network, np.zeros((1, config.hop), np.float32))
    codec = DeCodec(config, variables["params"], variables["codebook"])
    codec._chunked = Chunked(network, variables, groups=(4, 1))
    return codec


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def codec(family):
    return make(family, causal=False)


@pytest.fixture(scope="module")
def causal(family):
    return make(family, causal=True)


@pytest.fixture(params=["codec", "causal"])
def either(request, codec, causal):
    return {"codec": codec, "causal": causal}[request.param]


def clips(t, b=2):
    return testing.speech_clips(b, t) + testing.background_clips(b, t)


WAVE = clips(333)  # 17 frames
GAIN = gain_of(WAVE, RATE)


class Whole(NamedTuple):
    """What the network gives at once for `WAVE`, with the gain that it is coded with."""

    embeddings: Halves
    taken_apart: TakenApart


def whole(codec, active=None) -> Whole:
    def run(network, wave):
        return Whole(network.embed(wave), network.take_apart(wave, active))

    variables = {"params": codec.params, "codebook": codec.codebook}
    return jax.jit(lambda v, x: DeCodecNetwork(codec.config).apply(v, x, method=run))(variables, WAVE * amplitude(GAIN))


@pytest.fixture(scope="module")
def expected_of():
    return functools.cache(whole)


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "rate"), [((1,), 16_000), ((167,), 8000), ((2, 917), 44_100)])
def test_shape_and_rate_are_kept_and_the_way_over_tokens_is_the_same(codec, shape, rate):
    wave = clips(shape[-1] + 1)[: len(shape), : shape[-1]].reshape(shape)
    tokens = codec.encode(wave, rate)
    for task, keep in TASKS.items():
        out = getattr(codec, task)(wave, rate)
        assert type(out) is np.ndarray and (out.shape, out.dtype) == (shape, np.float32)
        np.testing.assert_allclose(out, codec.decode(tokens, keep, rate)[..., : shape[-1]], atol=1e-5)


def test_parts_equal_those_of_the_network(either, expected_of):
    expected = expected_of(either).taken_apart
    for task, part in (("reconstruct", "mixture"), ("enhance", "speech"), ("background", "background")):
        quieter = getattr(expected, part) * amplitude(-GAIN)
        np.testing.assert_allclose(getattr(either, task)(WAVE, RATE), quieter, atol=1e-5)


def test_pieces_equal_the_whole_at_any_rate(either):
    for rate in (RATE, 11_025):
        pieces = np.split(WAVE, [0, 1, 70, 290], axis=1)
        gain = gain_of(WAVE, rate)
        streamed = np.concatenate(list(either.stream(pieces, rate, "speech", gain=gain)), axis=1)
        np.testing.assert_allclose(streamed, either.enhance(WAVE, rate), atol=1e-5)


def test_a_causal_model_answers_frame_by_frame(causal):
    heard, given = 0, 0

    def microphone():
        nonlocal heard
        for piece in np.split(clips(100, 1), 5, axis=1):
            assert given == max(0, heard - 20 * lookahead(causal.config))
            heard += 20
            yield piece

    for wave in causal.stream(microphone(), RATE, "speech"):
        given += wave.shape[1]
    assert given == 100


def test_silence_is_blank_to_both(codec):
    silence = np.zeros(333, np.float32)
    for task in (codec.enhance, codec.background):
        np.testing.assert_allclose(task(silence, RATE), codec.reconstruct(silence, RATE), atol=1e-6)
    assert codec.encode(silence, RATE) == codec.blank(333)


# --- level ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [RATE, 11_025])
def test_a_quieter_recording_has_the_same_codes_and_is_quieter_again(either, rate):
    """By 18 dB, a power of two, so that no sample is rounded."""
    quiet = WAVE / 8
    for own, other in zip(either.encode(WAVE, rate), either.encode(quiet, rate), strict=True):
        assert other.gain == pytest.approx(own.gain + 20 * np.log10(8), abs=1e-5)
        assert replace(other, gain=own.gain) == own
    for task in TASKS:
        expected = getattr(either, task)(WAVE, rate) / 8
        np.testing.assert_allclose(getattr(either, task)(quiet, rate), expected, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), either.embed(quiet, rate), either.embed(WAVE, rate)
    )


def test_two_recordings_at_their_levels(codec):
    source, reference = WAVE[0], clips(257)[1]
    for task in (codec.convert, codec.recombine):
        assert np.abs(task(source, reference, RATE)).max() > 0.01
    np.testing.assert_allclose(codec.convert(source / 8, reference, RATE) * 8, codec.convert(source, reference, RATE),
                               atol=1e-5)  # fmt: skip
    np.testing.assert_allclose(codec.convert(source, reference / 8, RATE), codec.convert(source, reference, RATE),
                               atol=1e-5)  # fmt: skip
    both = codec.recombine(source / 8, reference / 8, RATE)
    np.testing.assert_allclose(both * 8, codec.recombine(source, reference, RATE), atol=1e-5)


def test_channels_keep_their_balance(codec):
    """One gain for both: the second, by itself much louder than it is here, is not raised to the first."""
    wave = WAVE * np.float32([[1], [1 / 64]])
    assert {tokens.gain for tokens in codec.encode(wave, RATE)} == {gain_of(wave, RATE)}
    assert gain_of(wave[0], RATE) < gain_of(wave, RATE) < gain_of(wave[1], RATE)


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_codes_equal_those_of_the_network(either, expected_of):
    codes = expected_of(either).taken_apart.codes
    tokens = either.encode(WAVE, RATE)
    assert [(each.length, each.gain) for each in tokens] == [(333, GAIN), (333, GAIN)]
    for row, each in enumerate(tokens):
        np.testing.assert_array_equal(each.speech, codes.speech[row])
        np.testing.assert_array_equal(each.background, codes.background[row])
    assert either.encode(WAVE[0], 11_025).length == -(-333 * 16_000 // 11_025)


def test_a_batch_equals_its_recordings_one_by_one(either):
    waves = [gain * clips(t, 1)[0] for t, gain in ((333, 1.0), (401, 0.5), (340, 2.0))]
    batch = either.encode_batch(waves, RATE)
    assert batch == [either.encode(wave, RATE) for wave in waves]
    batch[1] = batch[1].with_levels(1, 0)
    for tokens, wave in zip(batch, either.decode_batch(batch, "both", 8000), strict=True):
        assert wave.shape == (-(-tokens.length // 2),)
        np.testing.assert_allclose(wave, either.decode(tokens, sample_rate=8000), atol=1e-5)


def test_pieces_give_the_tokens_of_the_whole_and_back(either):
    tokens = either.encode(WAVE[0], 11_025)
    pieces = np.split(WAVE[:1], [0, 70, 71], axis=1)
    assert join(list(either.encode_stream(pieces, 11_025, gain=gain_of(WAVE[0], 11_025)))) == tokens
    sounded = np.concatenate(list(either.decode_stream(tokens, "speech", 44_100)), axis=1)[0]
    np.testing.assert_allclose(sounded, either.decode(tokens, "speech", 44_100), atol=1e-6)


@pytest.mark.parametrize("levels", [(1, 2), (2, 0), (0, 1)])
def test_levels_are_those_of_the_tokens(codec, levels):
    wave = WAVE[0]
    tokens = codec.encode(wave, RATE, levels)
    assert tokens.levels == levels and tokens == codec.encode(wave, RATE).with_levels(*levels)
    assert tokens.bitrate == sum(levels) * 4 * 16_000 / 20
    np.testing.assert_allclose(codec.reconstruct(wave, RATE, levels), codec.decode(tokens), atol=1e-6)


def test_what_is_left_out_is_blank(codec):
    wave = WAVE[0]
    tokens = codec.encode(wave, RATE)
    np.testing.assert_array_equal(codec.decode(tokens.with_levels(2, 0)), codec.decode(tokens, "speech"))
    np.testing.assert_array_equal(codec.decode(tokens.with_levels(1, 0)), codec.semantic(wave, RATE))
    blank = codec.blank(333)
    spliced = replace(tokens, background=blank.background)
    np.testing.assert_array_equal(codec.decode(spliced), codec.decode(tokens, "speech"))


def test_embeddings_equal_those_of_the_network(either, expected_of):
    expected = expected_of(either).embeddings
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), either.embed(WAVE, RATE), expected)
    assert either.embed(WAVE[0], RATE).speech.shape == (17, 8)


# --- two recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ["content", "tile"])
def test_conversion_takes_the_words_from_one_and_the_rest_from_the_other(codec, alignment):
    source, reference = WAVE[0], clips(257)[1]
    own, other = codec.encode(source, RATE), codec.encode(reference, RATE)
    every = jnp.arange(16)[None, None]
    variables = {"params": codec.params, "codebook": codec.codebook}
    vectors = DeCodecNetwork(codec.config).apply(variables, Halves(every, every), method="vectors").speech[0]
    frames = aligned(own.speech[0], other.speech[0], np.asarray(vectors), alignment)
    mixed = replace(own, speech=np.stack([own.speech[0], other.speech[1, frames]]))
    for keep in ("speech", "both"):
        converted = codec.convert(source, reference, RATE, alignment=alignment, keep=keep)
        np.testing.assert_array_equal(converted, codec.decode(mixed, keep))


def test_two_recordings_may_differ_in_rate_and_channels(codec):
    other = clips(417)
    assert codec.convert(WAVE, other, RATE, reference_rate=11_025).shape == (2, 333)
    assert codec.convert(WAVE[0], other, RATE).shape == (333,)
    assert codec.recombine(WAVE, other[0], RATE, background_rate=44_100).shape == (2, 333)


@pytest.mark.parametrize("t", [200, 417])
def test_another_background_is_repeated_or_cut(codec, t):
    speech, background = WAVE[0], clips(t)[1]
    fitted = np.tile(background, 2)[:333]
    other = join(list(codec.encode_stream([fitted[None]], RATE, gain=gain_of(speech, RATE))))
    mixed = replace(codec.encode(speech, RATE), background=other.background)
    np.testing.assert_allclose(codec.recombine(speech, background, RATE), codec.decode(mixed), atol=1e-6)


def test_lengths_share_what_is_compiled(either):
    def use(t):
        either.decode(either.encode(clips(t, 1)[0], RATE))
        either.enhance(clips(t, 1)[0], RATE)
        return either._chunked._apply._cache_size()

    compiled = [use(t) for t in (333, 350, 601)][-1]
    assert [use(t) for t in (347, 480, 919)] == 3 * [compiled]


def test_batches_share_what_is_compiled(causal):
    def use(b):
        waves = list(clips(20, b))
        tokens = causal.encode_batch(waves, RATE)
        assert [len(wave) for wave in causal.decode_batch(tokens)] == [20] * b
        return causal._chunked._apply._cache_size()

    compiled = [use(b) for b in (1, 3)][-1]  # 1 and 4 at a time
    assert [use(b) for b in (4, 3, 1)] == 3 * [compiled]
    assert use(8) == use(5) == use(7) == use(11) == use(25)  # at the most 8, and 1 or 4 of those that are left


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wave", "reason"),
    [(np.zeros(0), "no samples"), (np.array([0.0, np.nan]), "1 samples that are NaN"), (np.array([np.inf]), "infinite"),
     (np.zeros((1, 2, 3)), "shape"), (np.zeros((24_000, 2)), r"pass x\.T"), (np.zeros(9, complex), r"pass x\.real"),
     (np.zeros(9, int), "samples are int64"), (np.full(9, 32_767.0), "reaches 32767")],
)  # fmt: skip
def test_what_is_not_a_waveform(codec, wave, reason):
    """Whichever function takes it, and before any work."""
    whole, good = [*TASKS, "encode", "embed"], clips(100, 1)
    for call in [
        *(functools.partial(getattr(codec, task), wave, RATE) for task in whole),
        lambda: codec.encode_batch([wave], RATE),
        lambda: codec.convert(good, wave, RATE),
        lambda: codec.convert(wave, good, RATE),
        lambda: codec.recombine(good, wave, RATE),
        lambda: codec.recombine(wave, good, RATE),
        lambda: gain_of(wave, RATE),
        lambda: list(codec.stream([wave[None] if wave.ndim == 1 else wave], RATE)),
    ]:
        with pytest.raises(UserError, match=reason if wave.ndim < 3 else "shape"):
            call()


@pytest.mark.parametrize("rate", ["16000", None, 44_100.5, 0, np.inf, True])
def test_what_is_not_a_rate(codec, rate):
    wave, pieces, tokens = WAVE[0], [WAVE[:1]], codec.blank(20)
    for call in [
        *(functools.partial(getattr(codec, task), wave, rate) for task in (*TASKS, "encode", "embed")),
        lambda: codec.encode_batch([wave], rate),
        lambda: codec.convert(wave, wave, rate),
        lambda: codec.recombine(wave, wave, rate),
        lambda: codec.stream(pieces, rate),
        lambda: list(codec.encode_stream(pieces, rate)),
        lambda: gain_of(wave, rate),
    ]:
        with pytest.raises(UserError, match=r"sample_rate is .*; it must be a whole number of Hz"):
            call()
    for call in [
        lambda: codec.decode(tokens, sample_rate=rate),
        lambda: codec.decode_stream(tokens, sample_rate=rate),
        lambda: codec.recombine(wave, wave, RATE, rate),
        lambda: codec.convert(wave, wave, RATE, rate),
    ]:
        if rate is not None:  # which is the default
            with pytest.raises(UserError, match="sample_rate is"):
                call()


def test_only_the_values_of_an_array_count(codec):
    """One recording as soundfile, scipy, datasets and JAX give it: the same tokens, the same speech."""
    stored = sixteen_bits(clips(333))
    wave = stored / np.float32(2**15)
    tokens, speech = codec.encode(wave, RATE), codec.enhance(wave, RATE)
    for other in [
        stored, stored.astype(">i2"), stored.astype(np.int32) << 16, wave.astype(np.float64), np.asfortranarray(wave),
        wave.tolist(), list(wave), jnp.asarray(wave),
    ]:  # fmt: skip
        assert codec.encode(other, np.int64(RATE)) == tokens
        np.testing.assert_array_equal(codec.enhance(other, float(RATE)), speech)
        streamed = list(codec.stream([other], RATE, "speech", gain=gain_of(other, RATE)))
        np.testing.assert_allclose(np.concatenate(streamed, axis=1), speech, atol=1e-6)


def test_tensors_are_arrays(codec):
    torch = pytest.importorskip("torch")
    wave = torch.from_numpy(WAVE).requires_grad_()
    tokens = codec.encode(WAVE, RATE)
    assert codec.encode(wave, torch.tensor(RATE)) == codec.encode(list(wave), RATE) == tokens
    assert codec.encode_batch(wave, RATE) == codec.encode_batch(WAVE, RATE)
    made = replace(tokens[0], speech=torch.from_numpy(tokens[0].speech).long())  # as a language model gives them
    np.testing.assert_array_equal(codec.decode(made), codec.decode(tokens[0]))


def test_a_codec_goes_to_other_processes_and_is_copied(codec):
    """As `datasets.map(num_proc=)`, joblib and Beam send it; a fresh process has none of what this one compiled."""
    wave = WAVE[0]
    copied = copy.deepcopy(codec)
    assert copied.fingerprint == codec.fingerprint and copied.continuous().quantized is False
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(codec.encode, (wave, RATE)) == codec.encode(wave, RATE)


def test_what_cannot_be_asked_for(codec, causal):
    wave = clips(100)
    tokens = codec.encode(wave[0], RATE)
    for call, words in [
        (lambda: codec.enhance(wave, 0), "sample_rate is 0"),
        (lambda: codec.encode(wave, 44_100.5), "sample_rate is 44100.5"),
        (lambda: codec.encode(wave, RATE, (3, 1)), r"levels are \(3, 1\); pass a pair .* of up to \(2, 2\)"),
        (lambda: codec.encode(wave, RATE, 2), "levels are 2; pass a pair"),
        (lambda: codec.encode(wave, RATE, (0, 0)), "not both 0"),
        (lambda: codec.enhance(wave, RATE, (0, 1)), "the speech cannot be kept"),
        (lambda: codec.decode(tokens.with_levels(1, 0), "background"), "the background cannot be kept"),
        (lambda: codec.decode(tokens, sample_rate=-5), "sample_rate is -5"),
        (lambda: codec.decode_stream(tokens, sample_rate=-5), "sample_rate is -5"),
        (lambda: codec.recombine(wave, wave, RATE, -5), "sample_rate is -5"),
        (lambda: codec.decode(tokens, "music"), "keep is 'music'; it must be one of both, speech"),
        (lambda: causal.decode(tokens), f"made with the weights {codec.fingerprint}, not with these"),
        (lambda: codec.decode([tokens, tokens.cut(0, 1)]), "of one length"),
        (lambda: codec.encode_batch([wave], RATE), r"one channel, \[t\]"),
        (lambda: list(codec.encode_stream([wave], RATE)), "2 channels; this recording must have 1"),
        (lambda: list(codec.stream([wave, wave[:1]], RATE)), "1 channels; this recording must have 2"),
        (lambda: list(codec.stream([wave[0]], RATE)), r"\[channels, n\]"),
        (lambda: codec.stream([wave], RATE, gain=np.inf), "gain is inf; it must be a number of dB"),
        (lambda: list(codec.encode_stream([wave[:1]], RATE, gain=-101)), "gain is -101"),
        (lambda: list(codec.stream([wave[:, :0]], RATE)), "no samples"),
        (lambda: tokens.with_levels(3, 0), "speech cannot have 3 levels; these tokens have 2"),
    ]:
        with pytest.raises(UserError, match=words):
            call()


def test_without_quantizers_embeddings_take_the_place_of_codes(codec):
    early = codec.continuous()
    assert (early.quantized, codec.quantized, early.fingerprint) == (False, True, codec.fingerprint)
    expected = whole(early, Halves(*[jnp.zeros(3, jnp.int32)] * 2)).taken_apart
    np.testing.assert_allclose(early.enhance(WAVE, RATE), expected.speech * amplitude(-GAIN), atol=1e-5)
    for call in [
        lambda: early.encode(WAVE, RATE),
        lambda: early.semantic(WAVE, RATE),
        lambda: early.enhance(WAVE, RATE, (1, 1)),
        lambda: early.decode(codec.encode(WAVE, RATE)),
        lambda: early.blank(9),
    ]:
        with pytest.raises(UserError, match="codebooks have not started"):
            call()


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_bundle_is_the_model(codec, tmp_path):
    saved = bundle.save(tmp_path / "b", codec.config, codec.params, codec.codebook, step=7)
    loaded = DeCodec.load(tmp_path / "b")
    assert loaded.fingerprint == codec.fingerprint == saved.fingerprint
    assert (loaded.config, loaded.step, loaded.quantized) == (codec.config, 7, True)
    tokens = codec.encode(clips(100)[0], RATE)
    np.testing.assert_allclose(loaded.decode(tokens), codec.decode(tokens), atol=1e-5)


def test_another_decoder_decodes_the_same_tokens(codec):
    params = jax.tree.map(np.array, codec.params)
    params["decoder"] = jax.tree.map(lambda a: 0.5 * a, params["decoder"])
    other, tokens = DeCodec(codec.config, params, codec.codebook), codec.encode(clips(100)[0], RATE)
    assert other.encode(clips(100)[0], RATE) == tokens
    assert not np.allclose(other.decode(tokens), codec.decode(tokens), atol=1e-3)


def test_the_model_in_the_package_is_the_default():
    built_in = DeCodec.load()
    assert (built_in.config.causal, built_in.config.sample_rate, built_in.quantized) == (True, RATE, True)
    wave = clips(333, 1)[0]
    speech = built_in.enhance(wave, RATE)
    assert speech.shape == wave.shape and np.isfinite(speech).all()


def test_a_model_missing_from_the_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"comes with the package is not in .*; install decodec_jax again"):
        DeCodec.load()


def test_loading_what_is_not_a_model(tmp_path):
    with pytest.raises(UserError, match="neither a bundle nor a run folder"):
        DeCodec.load(tmp_path / "nowhere")
