"""Run the parts of `prepare` with Apache Beam: on the cores of this machine, or on Dataflow, Flink or Spark."""

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
    """The `run` that `prepare.prepare` takes. Raises UserError if Beam is missing or does not know one of the options.

    workers: processes on this machine; None: one for each core. options: Beam's, such as --runner=DataflowRunner
    --project=mine; without --runner, the parts run on this machine.
    """
    logging.disable(logging.WARNING)  # when it is imported, Beam warns about packages for BigQuery
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
        # Without a version here, Beam would first try a runner that it has to download.
        asked.append(f"--update_compatibility_version={apache_beam.__version__}")
        asked.append("--default_sdk_harness_log_level=CRITICAL")  # for the worker processes
    made = PipelineOptions(asked)
    known, without = made.get_all_options(), PipelineOptions([]).get_all_options()
    for option in asked:  # Beam ignores options that it does not know
        name = option.split("=")[0]
        if not option.startswith("--") or name.lstrip("-") in known:
            continue
        if PipelineOptions([option]).get_all_options() == without:  # many options have other names inside Beam
            raise UserError(f"{name} is not an option of this command or of Beam")
    return partial(_run, options=made, out=out, say=say)


def _run(work: Callable[[parts.Part], None], todo: Sequence[parts.Part], options, out: str, say) -> None:
    """Run the parts. Raises a UserError of one line if one of them fails."""
    import apache_beam

    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # the UserError below says what failed
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(out, todo, done, say), daemon=True)
    watch.start()
    try:
        with apache_beam.Pipeline(options=options) as pipeline:
            _ = pipeline | apache_beam.Create(list(todo)) | apache_beam.Reshuffle() | apache_beam.Map(work)
    except Exception as error:  # Beam wraps a worker's error and traceback in errors of many types
        told = re.findall(r"UserError: (.*)", str(error))
        line = told[-1] if told else next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{re.sub(r' *.while running.*', '', line)}; run the same command again to go on") from None
    finally:
        done.set()
        watch.join()


def _watch(out: str, todo: Sequence[parts.Part], done: threading.Event, say: Callable[[str], None]) -> None:
    """Report now and then how many parts are done."""
    while not done.wait(QUIET):
        try:
            say(f"{len(todo) - len(parts.left(out, todo))} of {len(todo)} parts are done")
        except UserError:
            continue
