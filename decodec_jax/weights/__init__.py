"""The model that comes with the package: this folder is a bundle. What `inference.bundle.located` makes of its name."""

from pathlib import Path

BUILT_IN = "built-in"  # wherever a bundle or a run folder may be named; a folder called so is ./built-in
FOLDER = Path(__file__).parent
