"""DeCodec in PyTorch. Copy this folder anywhere: it needs torch and safetensors, but neither JAX nor this package.

    model = DeCodec.from_pretrained("bundle")          # config.json and model.safetensors, float32 or float16
    with torch.inference_mode():
        speech, background = model.encode(wave)        # [b, t] at model.config.sample_rate -> [b, levels, frames] twice
        coded = model.decode(speech, background, wave.shape[-1])
        clean = model.enhance(wave)
    model.save_pretrained("fine_tuned")                # the weights, for JAX too
    to_torchscript(model, "player.pt")                 # the decoder alone, for C++

The model does not normalise the loudness of waveforms. Scale them to -26 dB of full scale first, as the JAX package
does, because models are trained at that level.

A causal model takes a stream frame by frame, or several frames at a time. Its state goes in and comes out:

    heard = said = ()
    with torch.inference_mode(), torch.nn.utils.parametrize.cached():  # compute the weights once, not for each frame
        for frame in microphone:                       # [1, hop]
            heard, codes = model.encode_step(heard, frame)
            said, sound = model.decode_step(said, *codes)

The codes of a step belong to the frame `model.lookahead` steps earlier (one step in the spectral family). So drop the
codes of the first `lookahead` steps, which belong to no frame, and send `lookahead` frames of silence at the end to get
the last codes. To enhance a stream, encode a batch of the frame and silence, and decode the speech codes of the frame
with the background codes of the silence.

On a GPU set `torch.backends.cudnn.allow_tf32 = False`; otherwise convolutions keep only 10 bits of their operands, and
some codes change. torch.export supports every method for any number of frames, except that it unrolls LSTMs: a model
with an LSTM is exported for a fixed number of frames, which is enough for a step of a stream.

Not supported: training (quantizers pass no gradient) and matrix products in bfloat16.
"""

from .bundle import VERSION, checksum_of, fingerprint_of
from .config import Model, Quantizer, Spectral, Waveform, from_dict
from .export import Player, to_torchscript
from .model import FAMILIES, DeCodec, TakenApart

__all__ = [
    "FAMILIES", "VERSION", "DeCodec", "Model", "Player", "Quantizer", "Spectral", "TakenApart", "Waveform",
    "checksum_of", "fingerprint_of", "from_dict", "to_torchscript",
]  # fmt: skip
