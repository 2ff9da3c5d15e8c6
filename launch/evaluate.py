"""Measure a run on test mixtures: `python launch/evaluate.py --model RUN --root FOLDER --out FOLDER`.

Writes separation.md (the table that is also printed), separation.json (every mixture's scores), curve.png (the run's
training) and taken_apart.png (one mixture in spectrograms). With --voices it prints a table of voice conversion.
"""

import argparse
import json
from pathlib import Path

from decodec_jax.config import Data
from decodec_jax.data.sources import open_source
from decodec_jax.errors import UserError
from decodec_jax.evaluation import conversion, figures, separation
from decodec_jax.inference.codec import DeCodec
from decodec_jax.launching import one_line

PANELS = {
    "loss": ["loss"],
    "held-out SI-SDR, dB": ["valid/si_sdr/mixture", "valid/si_sdr/speech", "valid/si_sdr/background"],
    "gain over the mixture, dB": ["valid/si_sdr_gain/speech", "valid/sdr_gain/background"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="run folder")
    parser.add_argument("--root", required=True, help="folder with a manifest that has a test split; empty: synthetic")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the pictures")
    parser.add_argument("--count", type=int, default=32, help="mixtures at each SNR (default 32)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a mixture (default 4)")
    parser.add_argument("--voices", type=int, default=0, help="pairs of speakers for voice conversion (default 0)")
    arguments = parser.parse_args()
    model = DeCodec.load(arguments.model)
    if arguments.voices and not model.quantized:
        raise UserError(f"--voices needs codes, and the codebooks of {arguments.model} have not started yet")
    source = open_source(Data(root=arguments.root, cache_mb=0), model.config.sample_rate, "test")
    mixtures = separation.make_mixtures(source, arguments.count, arguments.seconds)
    rows = separation.evaluate(model, mixtures)
    text = separation.table(rows)
    print(text)
    if arguments.voices:
        print(conversion.table(conversion.evaluate(model, source, arguments.voices, arguments.seconds)))

    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "separation.md").write_text(text + "\n")
    (arguments.out / "separation.json").write_text(json.dumps(rows, indent=1) + "\n")
    history = [json.loads(line) for line in (arguments.model / "metrics.jsonl").read_text().splitlines()]
    figures.curves(arguments.out / "curve.png", history, PANELS)
    shown, rate = next(m for m in mixtures if m.snr == 0), model.config.sample_rate
    figures.taken_apart(arguments.out / "taken_apart.png", {
        "what went in": {"mixture": shown.mixture, "speech": shown.speech, "background": shown.background},
        "what came out": {
            "mixture": model.reconstruct(shown.mixture, rate),
            "speech": model.enhance(shown.mixture, rate),
            "background": model.background(shown.mixture, rate),
        },
    }, rate)  # fmt: skip


if __name__ == "__main__":
    with one_line("evaluate.py"):
        main()
