"""What an evaluation may need beyond this package: optional packages, and other people's weights in local folders."""

import contextlib
import importlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from decodec_jax.errors import UserError

_PEERS = "pip install 'decodec_jax[peers]'"
_JUDGES = "pip install 'decodec_jax[judges]'"
INSTALL = {  # all others come with the extra `eval`
    "pesq": "pip install 'decodec_jax[pesq]', which compiles C",
    "faster_whisper": _JUDGES,
    "resemblyzer": "pip install --no-deps Resemblyzer",  # alone: it asks for webrtcvad, which needs a compiler
    "jiwer": "pip install 'decodec_jax[downstream]'",
    "phonemizer": "pip install phonemizer, and espeak-ng",
    "torch": _PEERS,
    "transformers": _PEERS,
    "speechtokenizer": "pip install speechtokenizer beartype",
    "academicodec": "clone https://github.com/yangdongchao/AcademiCodec and put it on PYTHONPATH",
}


def package(name: str) -> ModuleType:
    """An optional module. Raises UserError where it is not installed, which says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        how = INSTALL.get(name.partition(".")[0], "pip install 'decodec_jax[eval]'")
        raise UserError(f"{error.name or name} is not installed; {how}") from None


@contextlib.contextmanager
def loading(path: Path) -> Iterator[None]:
    """What goes wrong with a file of weights within becomes a UserError that names it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":. ")
        raise UserError(f"{path} has no usable weights: {reason}") from None


def folder(path: str | Path) -> Path:
    """Raises UserError unless it is a folder."""
    if not Path(path).is_dir():
        raise UserError(f"there is no folder {path}; download the model and name the folder it is in")
    return Path(path)


def pretrained(kind: str, path: str | Path):
    """The model in a folder that transformers' class `kind` reads, ready for inference. Nothing is downloaded.

    Raises UserError where a package, the folder or any of the weights is missing.
    """
    model, found = _read(kind, path, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):  # transformers would fill in random ones
        raise UserError(f"{path} lacks {len(missing)} of the weights of {kind}, such as {missing[0]}")
    return model.eval()


def preprocessor(kind: str, path: str | Path):
    """What stands before a model, a tokenizer or a feature extractor, as in `pretrained`."""
    return _read(kind, path)


def _read(kind: str, path: str | Path, **options):
    path = folder(path)
    package("torch")
    transformers = package("transformers")
    transformers.utils.logging.disable_progress_bar()
    with loading(path):
        return getattr(transformers, kind).from_pretrained(path, local_files_only=True, **options)
