"""DeCodec in PyTorch: a folder that may be copied anywhere. It needs torch and safetensors, not JAX or this package.

    model = DeCodec.from_bundle("bundle").eval()       # config.json and model.safetensors, float32 or 16
    with torch.inference_mode():
        speech, background = model.encode(wave)        # [b, t] at model.config.sample_rate -> [b, levels, frames] twice
        coded = model.decode(speech, background, wave.shape[-1])
        clean = model.enhance(wave)
    to_bundle(model, "fine_tuned")                     # weights back, for JAX
    to_torchscript(model, "player.pt")                 # the decoder alone, for C++

Waveforms are coded as loud as they are; models do best at -26 dB of full scale, to which the JAX package brings them.

A causal model takes a stream as it comes, a frame or more at a time; what it needs of the past is handed in and out:

    heard = said = ()
    with torch.inference_mode(), torch.nn.utils.parametrize.cached():  # the weights are the same for all frames
        for frame in microphone:                       # [1, hop]
            heard, codes = model.encode_step(heard, frame)
            said, sound = model.decode_step(said, *codes)

The codes of a step are those of `model.lookahead` frames before: of the spectral family, of the frame before. As many
frames at the start of a stream belong to no frame, and are better not said; as many frames of silence after its end
bring the last codes. To enhance a stream, let a batch of frame and silence be heard, and the frame's speech said with
the silence's background.

On a GPU set `torch.backends.cudnn.allow_tf32 = False`, or convolutions keep 10 bits of their operands and some codes
change. torch.export takes everything for any number of frames but LSTMs, which it unrolls: with one, an exported model
is for one number of frames. For a step of a stream that is no loss.

What is missing beside JAX: training (quantizing passes no gradient), and products in bfloat16.
"""

from .bundle import VERSION, fingerprint_of, to_bundle
from .config import Model, Quantizer, Spectral, Waveform, from_dict
from .export import Player, to_torchscript
from .model import FAMILIES, DeCodec, TakenApart

__all__ = [
    "FAMILIES", "VERSION", "DeCodec", "Model", "Player", "Quantizer", "Spectral", "TakenApart", "Waveform",
    "fingerprint_of", "from_dict", "to_bundle", "to_torchscript",
]  # fmt: skip
