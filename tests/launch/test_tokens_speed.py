"""launch/tokens_speed.py on two clips and a model of a few thousand parameters."""

import re
import runpy
from pathlib import Path

from decodec_jax import audio, testing

main = runpy.run_path(str(Path(__file__).parents[2] / "launch/tokens_speed.py"))["main"]


def test_a_row_for_the_loop_and_for_each_number_of_threads(tmp_path, capsys):
    config = testing.tiny_model(family="spectral", causal=True, encoder_blocks=1, decoder_blocks=1)
    model = testing.random_bundle(tmp_path / "model", config)
    (tmp_path / "clips").mkdir()
    for number, wave in enumerate(testing.speech_clips(2, 4000)):
        audio.write(tmp_path / f"clips/{number}.flac", wave, 16_000)
    main([str(tmp_path / "clips"), "--model", str(model), "--threads", "1"])
    first, *table, last = capsys.readouterr().out.splitlines()
    assert first == "2 recordings, 0 s" and last == "0 of 1600 codes differ"
    rows = [line.split(" | ") for line in table if re.match(r"\| [`t]", line)]
    assert [row[0] for row in rows] == ["| `codec.encode` in a loop", "| tokenize, reading threads: 1"]
    assert all(float(row[1]) >= 0 and int(row[3].rstrip(" |")) > 0 for row in rows)
