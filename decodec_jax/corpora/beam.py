"""Apache Beam runs the parts of `prepare`: on the cores of this machine, or on Dataflow, Flink or Spark."""

import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from functools import partial

from decodec_jax.corpora import parts
from decodec_jax.errors import UserError

QUIET = 20.0  # s between lines of progress


def runner(
    out: str, workers: int | None, options: Sequence[str], say: Callable[[str], None]
) -> Callable[[Callable[[parts.Part], None], Sequence[parts.Part]], None]:
    """What `prepare.prepare` runs its parts with. Raises UserError if Beam is missing or knows no such options.

    workers: processes on this machine; None: as many as there are cores. options: those of Beam, such as
    --runner=DataflowRunner --project=mine; without --runner, it runs here.
    """
    logging.disable(logging.WARNING)  # Beam warns, on import, of packages for BigQuery
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError("preparing a corpus needs Apache Beam: pip install 'decodec_jax[beam]'") from None
    finally:
        logging.disable(logging.NOTSET)
    asked = list(options)
    if not any(option.startswith("--runner=") for option in asked):
        asked.append("--runner=DirectRunner")
    if "--runner=DirectRunner" in asked:
        count = workers or os.cpu_count() or 1
        mode = "in_memory" if count == 1 else "multi_processing"
        asked += [f"--direct_num_workers={count}", f"--direct_running_mode={mode}"]
        # Naming the version keeps Beam from trying a runner that it would have to download.
        asked.append(f"--update_compatibility_version={apache_beam.__version__}")
        asked.append("--default_sdk_harness_log_level=CRITICAL")  # of the processes
    made = PipelineOptions(asked)
    known = made.get_all_options()
    for option in asked:  # Beam ignores what it does not know
        name = option.split("=")[0]
        if option.startswith("--") and name.lstrip("-") not in known:
            raise UserError(f"{name} is no option of this command or of Beam")
    return partial(_run, options=made, out=out, say=say)


def _run(work: Callable[[parts.Part], None], todo: Sequence[parts.Part], options, out: str, say) -> None:
    """Do the parts. Raises UserError, one line long, if any cannot be done."""
    import apache_beam

    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # of what fails, this function says all that matters
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(out, todo, done, say), daemon=True)
    watch.start()
    try:
        with apache_beam.Pipeline(options=options) as pipeline:
            _ = pipeline | apache_beam.Create(list(todo)) | apache_beam.Reshuffle() | apache_beam.Map(work)
    except Exception as error:  # Beam wraps what a worker raised, and its traceback, in errors of many kinds
        told = re.findall(r"UserError: (.*)", str(error))
        line = told[-1] if told else next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{re.sub(r' *.while running.*', '', line)}; run the same command again to go on") from None
    finally:
        done.set()
        watch.join()


def _watch(out: str, todo: Sequence[parts.Part], done: threading.Event, say: Callable[[str], None]) -> None:
    """Say now and then how many parts are done."""
    while not done.wait(QUIET):
        try:
            say(f"{len(todo) - len(parts.left(out, todo))} of {len(todo)} parts are done")
        except UserError:
            continue
