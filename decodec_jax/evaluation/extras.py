"""Optional packages, and other people's weights in local folders, that an evaluation may need."""

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
    "resemblyzer": "pip install --no-deps Resemblyzer",  # without webrtcvad, which needs a compiler
    "sentencepiece": "pip install 'decodec_jax[downstream]'",
    "phonemizer": "pip install 'decodec_jax[phones]'",
    "torch": _PEERS,
    "transformers": _PEERS,
    "speechtokenizer": "pip install speechtokenizer beartype",
    "academicodec": "clone https://github.com/yangdongchao/AcademiCodec and put it on PYTHONPATH",
}


def package(name: str) -> ModuleType:
    """Import an optional module. If it is not installed, raises UserError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        how = INSTALL.get(name.partition(".")[0], "pip install 'decodec_jax[eval]'")
        raise UserError(f"{error.name or name} is not installed; {how}") from None


@contextlib.contextmanager
def loading(path: Path) -> Iterator[None]:
    """Turn errors while weights are loaded from `path` into a UserError that names it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":. ")
        raise UserError(f"{path} has no usable weights: {reason}") from None


def folder(path: str | Path) -> Path:
    """The path of a folder. Raises UserError if there is none."""
    if not Path(path).is_dir():
        raise UserError(f"there is no folder {path}; download the model and give its folder")
    return Path(path)


def pretrained(kind: str, path: str | Path):
    """Load a model from a folder with transformers' class `kind`, ready for inference. Nothing is downloaded.

    Raises UserError if a package, the folder or any of the weights is missing.
    """
    model, found = _read(kind, path, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):  # transformers would initialise them at random
        raise UserError(f"{path} lacks {len(missing)} of the weights of {kind}, such as {missing[0]}")
    return model.eval()


def preprocessor(kind: str, path: str | Path):
    """Load the tokenizer or feature extractor of a model, in the same way as `pretrained`."""
    return _read(kind, path)


def _read(kind: str, path: str | Path, **options):
    path = folder(path)
    package("torch")
    transformers = package("transformers")
    transformers.utils.logging.disable_progress_bar()
    with loading(path):
        return getattr(transformers, kind).from_pretrained(path, local_files_only=True, **options)
