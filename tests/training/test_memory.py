import subprocess
import sys

import pytest

HELD = """
from pathlib import Path
import numpy as np
from decodec_jax.training.memory import keep_freed_memory
{begin}
np.ones(16_000_000)  # 128 MB, freed at once
print(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's")
def test_what_is_freed_is_kept():
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", HELD.format(begin=begin)], capture_output=True, check=True).stdout)
        for begin in ("", "keep_freed_memory()")
    )
    assert kept > given_back + 100_000  # kB
