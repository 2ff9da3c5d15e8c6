import numpy as np
import pytest

from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.evaluation.reports import latents
from decodec_jax.inference.codec import DeCodec
from decodec_jax.testing import speech_clips, tiny_model


@pytest.mark.parametrize("form", ["learned", "exact", "none"])
def test_projections_match_those_of_the_network(form, rng):
    width = tiny_model().latent
    params = {"projection": {part: rng.standard_normal((width, width)) for part in ("speech", "background")}}
    onto = latents.projections(DeCodec(tiny_model(projection=form), params, {}))
    if form == "learned":
        np.testing.assert_allclose(onto.speech, params["projection"]["speech"].T, rtol=1e-6)
    elif form == "exact":
        np.testing.assert_array_equal(onto.speech + onto.background, np.eye(width))
        assert not np.any(onto.speech @ onto.background.T)
    else:
        np.testing.assert_array_equal(onto, [np.eye(width)] * 2)


@pytest.mark.parametrize("form", ["learned", "exact"])
def test_halves_in_one_space_add_up_to_the_decoder_input(form, rng):
    config = tiny_model(projection=form)
    halves = Halves(*rng.standard_normal((2, 5, config.half), np.float32))
    parts = latents.in_one_space(DeCodec(config, {}, {}), halves)
    assert parts.speech.shape == (5, config.latent)
    np.testing.assert_array_equal(sum(parts), DeCodecNetwork(config).apply({}, halves, method="recombine"))
    if form == "exact":
        assert not np.any(np.sum(parts.speech * parts.background, axis=1))


def test_content_and_rest_are_mean_vectors_of_the_codes(tiny_network):
    network, variables = tiny_network
    model = DeCodec(network.config, variables["params"], variables["codebook"])
    waves = [speech_clips(1, t, seed)[0] for seed, t in enumerate((1200, 1600))]
    content, rest = latents.content_and_rest(model, waves, 16_000)
    assert content.shape == rest.shape == (2, network.config.latent)
    for i, wave in enumerate(waves):
        tokens = model.encode(wave, 16_000)
        codes = Halves(tokens.speech[None], tokens.background[None])
        every = np.asarray(network.apply(variables, codes, method="vectors").speech[0])
        np.testing.assert_allclose(content[i] + rest[i], every.mean(axis=0), atol=1e-5)
        first = Halves(codes.speech[:, :1], codes.background)
        first = np.asarray(network.apply(variables, first, method="vectors").speech[0])
        np.testing.assert_allclose(content[i], first.mean(axis=0), atol=1e-5)
