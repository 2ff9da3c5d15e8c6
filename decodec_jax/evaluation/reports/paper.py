"""The results printed in the paper (arXiv 2509.09201), shown in a column of their own.

The paper measured them on other recordings than ours. Its SDR is that of BSS-eval, its word error rates are by Whisper,
and its speaker similarity is by WavLM. Its noisy sets have SNRs from -5 to 20 dB.
"""

from collections.abc import Mapping

_SDR = {"DeCodec": 7.61, "DeCodec-c": 6.79, "EnCodec": 6.86, "HiFi-Codec": 4.85, "DAC": 0.60, "SpeechTokenizer": 3.41}
_MEL = {"DeCodec": 0.89, "DeCodec-c": 0.88, "EnCodec": 1.03, "HiFi-Codec": 0.75, "DAC": 0.65, "SpeechTokenizer": 0.76}
_WER = {"DeCodec": 0.0192, "DeCodec-c": 0.0198, "EnCodec": 0.0228, "HiFi-Codec": 0.0261, "DAC": 0.0221,
        "SpeechTokenizer": 0.0182}  # fmt: skip
_KBPS = {"DeCodec": 8.0, "DeCodec-c": 8.0, "EnCodec": 6.0, "HiFi-Codec": 2.0, "DAC": 4.5, "SpeechTokenizer": 4.0}
_NOISY_SDR = {"DeCodec": 5.21, "DeCodec-c": 4.62, "EnCodec": 4.88, "HiFi-Codec": -0.66, "DAC": -1.62,
              "SpeechTokenizer": -0.50}  # fmt: skip
_NOISY_MEL = {"DeCodec": 0.81, "DeCodec-c": 0.82, "EnCodec": 0.84, "HiFi-Codec": 0.90, "DAC": 0.69,
              "SpeechTokenizer": 0.90}  # fmt: skip


def _by_model(*values: float) -> dict[str, float]:
    return dict(zip(("Ablation-1", "Ablation-2", "Ablation-3", "DeCodec-c", "DeCodec"), values, strict=True))


_ABLATION = {
    "bss_sdr/mixture": _by_model(8.93, 6.70, 6.68, 4.62, 5.21),
    "bss_sdr/speech": _by_model(-1.91, 3.03, 7.90, 5.70, 6.73),
    "bss_sdr/background": _by_model(-13.15, -10.67, 0.49, -1.11, -0.36),
}

_OPINIONS = ("dnsmos/ovrl", "dnsmos/sig", "dnsmos/bak")  # second DNS Challenge, blind sets
_NO_REVERB = {
    "noisy": (2.48, 3.39, 2.62), "Inter-SubNet": (3.10, 3.46, 3.82), "StoRM": (3.21, 3.51, 3.94),
    "SELM": (3.26, 3.51, 4.10), "DeCodec-c": (3.31, 3.58, 4.09), "DeCodec": (3.39, 3.64, 4.13),
}  # fmt: skip
_REAL = {
    "noisy": (2.26, 3.05, 2.51), "Inter-SubNet": (2.81, 3.26, 3.57), "StoRM": (2.94, 3.41, 3.38),
    "SELM": (3.12, 3.59, 3.44), "DeCodec-c": (2.99, 3.31, 3.94), "DeCodec": (3.13, 3.45, 3.99),
}  # fmt: skip


def _opinions(table: Mapping[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {key: {name: row[i] for name, row in table.items()} for i, key in enumerate(_OPINIONS)}


TABLES: dict[str, dict[str, dict[str, dict[str, float]]]] = {  # by suite, group, figure and name
    "reconstruction": {
        "clean": {"bss_sdr/mixture": _SDR, "mel/mixture": _MEL, "wer": _WER, "kbps": _KBPS},
        "noisy": {"bss_sdr/mixture": _NOISY_SDR, "mel/mixture": _NOISY_MEL, "kbps": _KBPS},
    },
    "enhancement": {
        "all SNRs": {key: {name: row[name] for name in ("DeCodec-c", "DeCodec")} for key, row in _ABLATION.items()}
        | _opinions(_NO_REVERB),
        "paired": _opinions(_REAL),
    },
    "conversion": {  # of noisy speech
        "converted": {
            "similarity": {"reference": 0.69, "SpeechTokenizer": 0.80, "StoRM+SpeechTokenizer": 0.83, "DeCodec": 0.83},
            "wer": {"SpeechTokenizer": 0.7418, "StoRM+SpeechTokenizer": 0.5273, "DeCodec": 0.5046},
        },
    },
    "ablation": {"all SNRs": _ABLATION},
}
