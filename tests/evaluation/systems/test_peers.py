"""Adapters for other codecs and judges, with small random weights in the published layouts.

On Python 3.11 the `test` extra installs torch and transformers, so these tests are never skipped there.
"""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation import extras
from decodec_jax.evaluation.metrics import judges
from decodec_jax.evaluation.systems import baselines
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.testing import speech_clips

if sys.version_info >= (3, 12):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")

import torch
import transformers
from tokenizers import pre_tokenizers
from torch import nn

RATE = 16_000


@pytest.fixture(scope="module")
def item():
    return Item("clip", RATE, speech_clips(1, 2001)[0])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


# --- codecs in transformers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tiny EnCodec, DAC and Mimi models at 50 or 25 frames per second, and a stereo EnCodec."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    encodec = {"num_filters": 2, "hidden_size": 8, "codebook_dim": 8, "codebook_size": 16, "num_lstm_layers": 1,
               "upsampling_ratios": [8, 5, 4, 2], "sampling_rate": RATE, "target_bandwidths": [0.2, 0.6],
               "normalize": False}  # fmt: skip
    models = {
        "encodec": transformers.EncodecModel(transformers.EncodecConfig(**encodec)),
        "stereo": transformers.EncodecModel(transformers.EncodecConfig(**encodec, audio_channels=2)),
        "dac": transformers.DacModel(transformers.DacConfig(
            encoder_hidden_size=2, downsampling_ratios=[2, 4, 5, 8], decoder_hidden_size=32, n_codebooks=3,
            codebook_size=16, codebook_dim=4, sampling_rate=RATE,
        )),
        "mimi": transformers.MimiModel(transformers.MimiConfig(
            num_filters=2, hidden_size=8, codebook_dim=8, vector_quantization_hidden_dimension=8, codebook_size=16,
            num_quantizers=4, upsampling_ratios=[8, 5, 4, 2], sampling_rate=RATE, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, head_dim=4, intermediate_size=8, upsample_groups=8,
            frame_rate=25,
        )),
    }  # fmt: skip
    for name, model in models.items():
        model.save_pretrained(root / name)
    return root


@pytest.mark.parametrize(("name", "kbps", "frames", "levels"), [
    ("encodec", "0.6", 7, 3), ("encodec", "0.2", 7, 1), ("dac", "0.4", 7, 2), ("dac", "0.6", 7, 3),
    ("mimi", "0.1", 4, 1), ("mimi", "0.4", 4, 4),
])  # fmt: skip
def test_a_codec_preserves_the_length_and_counts_its_bits(folders, item, name, kbps, frames, levels):
    system = baselines.find(f"{name}:{folders / name}:{kbps}")
    assert system.name == f"{name}:{name}:{kbps}" and set(system.tasks) == {"reconstruct"}
    made = system.tasks["reconstruct"](item)
    assert made.wave.shape == item.mixture.shape and made.wave.dtype == np.float32
    assert np.isfinite(made.wave).all() and np.any(made.wave)
    assert made.bits == frames * levels * 4  # 16 entries


def test_a_codec_runs_at_its_own_sample_rate(folders, item):
    other = item._replace(rate=RATE // 2)  # 2001 samples at 8 kHz are 4002 of its own
    made = baselines.find(f"dac:{folders / 'dac'}:0.2").tasks["reconstruct"](other)
    assert made.wave.shape == other.mixture.shape and made.bits == 13 * 4


def test_an_adapter_returns_the_models_output(folders, item):
    model = transformers.EncodecModel.from_pretrained(folders / "encodec").eval()
    with torch.inference_mode():
        wave = torch.from_numpy(np.pad(item.mixture, (0, -len(item.mixture) % 320)))
        expected = model(wave[None, None], bandwidth=0.6).audio_values[0, 0, : len(item.mixture)]
    made = baselines.find(f"encodec:{folders / 'encodec'}:0.6").tasks["reconstruct"](item)
    np.testing.assert_allclose(made.wave, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("spec", "message"), [
    ("encodec:{}/encodec:6", "codes at 0.2, 0.6 kbps, not at 6"),
    ("encodec:{}/stereo:0.6", "codes 2 channels"),
    ("dac:{}/dac:6", "codes at 0.2 to 0.6 kbps, in steps of 0.2, not at 6"),
    ("mimi:{}/mimi:0.01", "codes at 0.1 to 0.4 kbps, in steps of 0.1, not at 0.01"),
    ("mimi:{}:1", "has no usable weights"),
])  # fmt: skip
def test_unsupported_models_and_bitrates_are_refused(folders, spec, message):
    with pytest.raises(UserError, match=message):
        baselines.find(spec.format(folders))


def test_a_folder_with_missing_weights_is_refused(folders, tmp_path):
    model = transformers.DacModel.from_pretrained(folders / "dac")
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if "conv2.bias" not in k})
    with pytest.raises(UserError, match=r"lacks .* of the weights of DacModel, such as"):
        extras.pretrained("DacModel", tmp_path)


# --- codecs in packages of their own --------------------------------------------------------------------------------


class Blocks(nn.Module):
    """A stand-in codec: the code of a frame of 320 samples is the sign of their sum, at each of `count` levels."""

    def __init__(self, count):
        super().__init__()
        self.sign = nn.Parameter(torch.ones(1))
        self.count = count

    def codes(self, wave):
        sign = (wave.reshape(1, -1, 320).sum(-1) * self.sign > 0).long()
        return [sign[0]] * self.count

    def wave(self, codes):
        return codes.float().repeat_interleave(320)[None, None] * self.sign


def test_speechtokenizer_is_loaded_through_its_package(item, tmp_path, monkeypatch):
    class SpeechTokenizer(Blocks):
        @classmethod
        def load_from_checkpoint(cls, config_path, ckpt_path):
            model = cls(json.loads(open(config_path).read())["n_q"])
            model.load_state_dict(torch.load(ckpt_path))
            return model

        def encode(self, wave):
            return torch.stack(self.codes(wave))[:, None]  # [k, 1, f]

        def decode(self, codes):
            return self.wave(codes[0])

    monkeypatch.setitem(sys.modules, "speechtokenizer", SimpleNamespace(SpeechTokenizer=SpeechTokenizer))
    config = {"n_q": 8, "sample_rate": RATE, "strides": [8, 5, 4, 2], "codebook_size": 1024}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(SpeechTokenizer(8).state_dict(), tmp_path / "SpeechTokenizer.pt")
    made = baselines.find(f"speechtokenizer:{tmp_path}").tasks["reconstruct"](item)
    assert made.wave.shape == item.mixture.shape and made.bits == 8 * 7 * 10
    assert made.wave[0] == float(item.mixture[:320].sum() > 0)


def test_hificodec_is_assembled_from_its_parts(item, tmp_path, monkeypatch):
    class Encoder(nn.Identity):
        def __init__(self, config):
            super().__init__()

    class Quantizer(Blocks):
        def __init__(self, config):
            super().__init__(2 * config.n_code_groups)

        def forward(self, wave):
            return None, None, self.codes(wave)

        def embed(self, codes):  # [1, f, 4]
            return self.wave(codes[0, :, 0])

    models, env = ModuleType("models"), ModuleType("env")
    models.Encoder = models.Generator = Encoder
    models.Quantizer, env.AttrDict = Quantizer, lambda config: SimpleNamespace(**config)
    for name in ("academicodec", "academicodec.models", "academicodec.models.hificodec"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "academicodec.models.hificodec.models", models)
    monkeypatch.setitem(sys.modules, "academicodec.models.hificodec.env", env)
    config = {"n_code_groups": 2, "n_codes": 1024, "sampling_rate": RATE, "upsample_rates": [8, 5, 4, 2]}
    (tmp_path / "config_16k_320d.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="must hold two files"):
        baselines.find(f"hificodec:{tmp_path}")
    weights = {"encoder": {}, "generator": {}, "quantizer": Quantizer(SimpleNamespace(n_code_groups=2)).state_dict()}
    torch.save(weights, tmp_path / "HiFi-Codec-16k-320d")
    made = baselines.find(f"hificodec:{tmp_path}").tasks["reconstruct"](item)
    assert made.wave.shape == item.mixture.shape and made.bits == 4 * 7 * 10


# --- TorchScript ----------------------------------------------------------------------------------------------------


class Halve(nn.Module):
    sample_rate: int = 8000

    def forward(self, wave):
        return 0.5 * wave[:, :-1]


class Channels(nn.Module):
    def forward(self, wave):
        return torch.stack([wave, wave])


def test_an_enhancer_runs_at_its_own_rate_and_preserves_the_length(item, tmp_path):
    torch.jit.script(Halve()).save(tmp_path / "halve.pt")
    system = baselines.find(f"enhancer:{tmp_path / 'halve.pt'}")
    low = np.sin(0.1 * np.arange(2001)).astype(np.float32)  # 250 Hz
    made, rest = (system.tasks[task](item._replace(mixture=low)).wave for task in ("enhance", "background"))
    assert system.name == "enhancer:halve.pt" and made.shape == low.shape
    np.testing.assert_allclose(made[200:-200], low[200:-200] / 2, atol=0.01)
    np.testing.assert_allclose(made + rest, low, atol=1e-6)


def test_files_that_are_not_enhancers_are_refused(item, tmp_path):
    torch.jit.script(Channels()).save(tmp_path / "channels.pt")
    with pytest.raises(UserError, match=r"turns \[1, t\] into \[2, 1, 2001\]"):
        baselines.find(f"storm:{tmp_path / 'channels.pt'}").tasks["enhance"](item)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match=r"text.pt has no usable weights"):
        baselines.find(f"enhancer:{tmp_path / 'text.pt'}")
    with pytest.raises(UserError, match=r"there is no file .*nowhere.pt"):
        baselines.find(f"enhancer:{tmp_path / 'nowhere.pt'}")


# --- judges ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A folder with a tiny Whisper whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("whisper")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    vocabulary = {token: n for n, token in enumerate([*letters, *special])}
    end, start = vocabulary[special[0]], vocabulary[special[1]]
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=[], extra_special_tokens=special[1:])
    extractor = transformers.WhisperFeatureExtractor(feature_size=8)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(
        vocab_size=len(vocabulary), num_mel_bins=8, d_model=8, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
        max_target_positions=12, bos_token_id=end, eos_token_id=end, pad_token_id=end, decoder_start_token_id=start,
        suppress_tokens=None, begin_suppress_tokens=None,
    )).save_pretrained(folder)  # fmt: skip
    return folder


def test_whisper_counts_words_in_every_segment_of_30_s(whisper, monkeypatch):
    judge = judges.whisper(whisper)
    wave = speech_clips(1, 31 * RATE // 2)[0]  # at half of Whisper's sample rate
    assert judge(wave[:4000], RATE // 2, "It's a test")["wer"] > 0  # random weights recognise nothing

    def says(model, features, attention_mask, **options):
        assert features.shape == (2, 8, 3000) and attention_mask.shape == (2, 3000) and not options
        assert attention_mask.sum(1).tolist() == [3000, 100]
        return [tokenizer("It's twenty two,").input_ids, tokenizer(" the bad test!").input_ids]

    tokenizer = transformers.WhisperTokenizer.from_pretrained(whisper)
    monkeypatch.setattr(transformers.WhisperForConditionalGeneration, "generate", says)
    assert judge(wave, RATE // 2, "it's twenty two the best test") == {"wer": pytest.approx(1 / 6)}
    with pytest.raises(UserError, match="the transcript is None"):
        judge(wave, RATE // 2)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """A folder with a tiny WavLM speaker embedder."""
    folder = tmp_path_factory.mktemp("wavlm")
    torch.manual_seed(0)
    transformers.WavLMForXVector(transformers.WavLMConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(4, 4),
        conv_kernel=(10, 8), conv_stride=(20, 16), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        tdnn_dim=(8, 8, 8), tdnn_kernel=(5, 3, 1), tdnn_dilation=(1, 2, 1), xvector_output_dim=8,
    )).save_pretrained(folder)  # fmt: skip
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def test_speaker_similarity_is_the_cosine_of_embeddings(embedder):
    similarity = judges.speaker(embedder)
    one, other = speech_clips(2, RATE)
    assert similarity(one, one, RATE) == pytest.approx(1)
    assert similarity(3 * one, one, RATE) == pytest.approx(1, abs=1e-4)  # normalised
    model = transformers.WavLMForXVector.from_pretrained(embedder).eval()
    with torch.inference_mode():
        vectors = [model(torch.from_numpy((w - w.mean()) / w.std())[None]).embeddings for w in (one, other)]
    expected = torch.cosine_similarity(*vectors).item()
    assert similarity(one, other, RATE) == pytest.approx(expected, abs=1e-4) and expected < 0.9999
    assert -1 <= similarity(one[:50], other[:9000], RATE) <= 1
    with pytest.raises(UserError, match="one channel"):
        similarity(np.stack([one, other]), one, RATE)


def test_judges_refuse_the_wrong_folder(whisper, embedder, tmp_path):
    for judge, folder in ((judges.whisper, embedder), (judges.speaker, whisper), (judges.whisper, tmp_path)):
        with pytest.raises(UserError, match=r"has no usable weights|lacks \d+ of the weights"):
            judge(folder)
    with pytest.raises(UserError, match="there is no folder nowhere"):
        judges.whisper("nowhere")
