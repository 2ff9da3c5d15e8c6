"""What recognisers on tokens get wrong, in clean speech and in noise: downstream/asr trains them.

A recogniser hears what it was trained on: levels of one stream, both streams, latents or log mel spectra. One on
spectra hears every item twice: as it is, and as its codec cleans it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from decodec_jax.downstream.asr.rates import error_rates
from decodec_jax.downstream.asr.recogniser import Recogniser
from decodec_jax.downstream.loop import read_card
from decodec_jax.downstream.text import spelled
from decodec_jax.errors import UserError
from decodec_jax.evaluation.reports.tables import Row
from decodec_jax.evaluation.suites.items import group
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.inference.codec import DeCodec


class Named(NamedTuple):
    """A recogniser, and what to call it."""

    name: str
    recogniser: Recogniser


def load(specs: Sequence[str], codecs: Sequence[DeCodec] = ()) -> list[Named]:
    """RUN or NAME=RUN each. The codec is the one of these that a recogniser was trained on, or that its config names.

    Raises UserError for what is no recogniser, and where two have one name.
    """
    found: list[Named] = []
    for spec in specs:
        name, equals, path = spec.partition("=")
        if not equals or Path(spec).exists():
            name, path = Path(spec).resolve().name, spec
        if name in (each.name for each in found):
            raise UserError(f"--recogniser has two called {name!r}; give each a name of its own: NAME=RUN")
        trained_on = read_card(Path(path)).get("codec")
        codec = next((each for each in codecs if each.fingerprint == trained_on), None)
        found.append(Named(name, Recogniser.load(path, codec)))
    return found


def measure(each: Named, item: Item) -> Iterator[Row]:
    """Error rates of an item, from 0 up, by greedy decoding; nothing for an item whose text cannot be spelled."""
    recogniser, kind = each.recogniser, each.recogniser.config.model.text
    (symbols,) = spelled([item.transcript], kind, recogniser.config.model.language)
    if isinstance(symbols, UserError):
        return
    said = recogniser.vocabulary.joint.join(symbols)
    waves = {each.name: item.mixture}
    if recogniser.hears_waves:
        cleaned = recogniser.codec.enhance(item.mixture, item.rate)
        waves = {f"{each.name}, untouched": item.mixture, f"{each.name}, denoised": cleaned}
    for column, wave in waves.items():
        heard = recogniser.recognise_wave(wave, item.rate)
        yield Row(group(item), column, item.name, error_rates(kind, [said], [heard]))
