"""The options of the `decodec` command and their help, which the page of the docs shows too."""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

from decodec_jax.weights import BUILT_IN


class Command(NamedTuple):
    """What a command does, in a line, and an example of it."""

    what: str
    example: str


TAKE_APART = {
    "enhance": Command("the speech of a recording, without its background", "noisy.wav clean.wav"),
    "background": Command("the background of a recording, without its speech", "noisy.wav street.wav"),
    "reconstruct": Command("the whole recording, encoded and decoded", "in.wav out.flac --levels 4,4"),
    "semantic": Command("the first speech level alone: the words more than the voice", "in.wav out.wav"),
}
CODE = {
    "encode": Command("a recording, mixed down to one channel, to tokens", "talk.wav talk.dcc"),
    "decode": Command("tokens to a recording, or to one part of it", "talk.dcc talk.wav --keep speech"),
    "embed": Command("a recording, mixed down, to embeddings before quantization", "talk.wav talk.npz"),
}
COMBINE = {
    "convert": Command("the words of a recording in another voice", "in.wav out.wav --reference voice.wav"),
    "recombine": Command("the speech of a recording over another background", "in.wav out.wav --background sea.wav"),
}
SPEAK = {
    "speak": Command("a text in the voice of a recording, by models that you train on tokens",
                     "Hello hi.wav --voice me.wav --model-first ar --model-nar nar"),
}
MODELS = {
    "info": Command("facts about .dcc files, recordings, models or this installation", "talk.dcc"),
    "export": Command("a training run to a bundle with a model card", "runs/small models/small"),
    "demo": Command("a web page that runs the codec in your browser", "--model runs/small"),
}
CORPORA = {
    "prepare": Command("archives and folders to shards for training (extra [beam])", "vctk=/data/VCTK SHARDS"),
    "tokenize": Command("a corpus to shards of tokens, for language models", "recordings tokens"),
}
MEASURE = {
    "evaluate": Command("tables that say how good models are", "--suite enhancement --data TEST --out OUT"),
    "page": Command("a web page to listen to: recordings, pictures, tables", "--data TEST --out PAGE"),
}
GROUPS = {
    "split recordings": TAKE_APART, "code": CODE, "combine": COMBINE, "speak": SPEAK, "corpora": CORPORA,
    "models": MODELS, "measure": MEASURE,
}  # fmt: skip
MODEL_HELP = "bundle or run folder; default: the model that comes with the package"
SUITES = ("reconstruction", "enhancement", "absence", "conversion", "ablation", "leakage", "recognition",
          "synthesis")

PAGE = """\
Split recordings into speech and background, and code them as tokens, with a DeCodec model.

{commands}

A model comes with the package. Use --model to name another: a bundle (made by `decodec export`) or
the folder of a training run. The word {BUILT_IN} stands for the model of the package:

    decodec enhance noisy.wav clean.wav --model runs/small
    decodec evaluate --suite enhancement --model {BUILT_IN} runs/small --data TEST --out OUT

IN is a file and OUT the file to write. Or IN is several files, folders or patterns such as
"talks/**/*.wav", and OUT is a folder. Subfolders are kept. Files that exist already are skipped, so
the same command continues where it stopped:

    decodec enhance recordings cleaned

Any sample rate, number of channels and length works. The output has the rate, the channels and the
length of the input, to the sample, but nothing above half the model's rate (8 kHz for 16 kHz).
Tokens and embeddings hold one channel: `encode` and `embed` mix channels down, and `decode` writes
one channel at the model's rate. Read what `embed` writes with numpy.load: `speech` and `background`
before quantization, float32 [frames, width]; `frames_per_second`; the model's `fingerprint`.

Recordings are coded at -26 dB of full scale and returned at their own level. The level of a pipe is
not known in advance, so it is coded as it is, or --gain DB louder. (`embed`, `convert` and
`recombine` read a pipe to its end and measure it.)

A single - means standard input or output, as wav. A causal model answers while it listens. At the
end it reports two delays: the algorithmic latency, which `decodec info` shows too, and the time
that computing added:

    arecord -f S16_LE -r 16000 -t wav | decodec enhance - - | aplay

The first call of a kind (for files, pipes or tokens) compiles the model, which takes some seconds.
Later calls reuse the compiled code: up to 512 MB of it is kept in ~/.cache/decodec_jax (or in
decodec_jax within $XDG_CACHE_HOME). Set the environment variable DECODEC_CACHE=off to keep nothing.

The exit code is 0, or 2 after one line for each error. No half-written file remains.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    lines = []
    for title, group in GROUPS.items():
        lines.append(f"{title}:")
        for name, command in group.items():
            lines += [f"  {name:<12} {command.what}", f"  {'':<12}   decodec {name} {command.example}"]
    raw = argparse.RawDescriptionHelpFormatter
    description = PAGE.format(commands="\n".join(lines), BUILT_IN=BUILT_IN)
    top = argparse.ArgumentParser("decodec", "decodec COMMAND ...", description, formatter_class=raw)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", help="see `decodec COMMAND --help`")
    options = {}
    for name, command in {name: command for group in GROUPS.values() for name, command in group.items()}.items():
        description = f"{command.what[0].upper()}{command.what[1:]}.\n\nexample: decodec {name} {command.example}"
        one = commands.add_parser(name, prog=f"decodec {name}", description=description, formatter_class=raw)
        options[name] = one.add_argument
        if name not in SPEAK | CORPORA | MODELS | MEASURE:
            options[name]("inputs", nargs="+", metavar="IN", help="file, folder, pattern, or - for standard input")
            options[name]("output", metavar="OUT", help="file or folder to write, or - for standard output")
            options[name]("--model", default=BUILT_IN, help=MODEL_HELP)
            options[name]("--overwrite", action="store_true", help="replace files that exist in the folder OUT")
        options[name]("--json", action="store_true", help="report the result as JSON (on standard error if OUT is -)")
    for name in ("enhance", "background", "reconstruct", "encode", "tokenize"):
        options[name]("--levels", type=_pair, metavar="S,N",
                      help="levels of speech and background to use; fewer levels, lower bitrate")  # fmt: skip
    for name in ("enhance", "background", "reconstruct"):
        options[name]("--continuous", action="store_true", help="bypass the quantizers: better sound, no tokens")
    for name in (*TAKE_APART, "encode"):
        options[name]("--gain", type=float, metavar="DB",
                      help="code the recording DB louder (default: bring it to -26 dB; 0 for a pipe)")  # fmt: skip
    for name in TAKE_APART:
        options[name]("--raw", type=_positive, metavar="HZ",
                      help="pipes carry 16-bit samples of one channel at this rate, not wav")  # fmt: skip
    options["decode"]("--keep", default="both", choices=("both", "speech", "background", "semantic"),
                      help="the part to decode (default both)")  # fmt: skip
    options["decode"]("--rate", type=_positive, metavar="HZ", help="rate of the recording (default: the model's)")
    options["decode"]("--recover", action="store_true", help="replace damaged parts by silence")
    options["convert"]("--reference", dest="other", required=True, metavar="FILE", help="a few seconds of the voice")
    options["convert"]("--align", default="content", choices=("content", "tile"),
                       help="take the voice from similar sounds of the reference (default), or from its start")
    options["convert"]("--keep", default="speech", choices=("speech", "both"), help="both keeps the background too")
    options["convert"]("--model-nar", metavar="RUN", help="a run of configs/tts.py:..._nar, which makes the voice "
                       "in place of frames of the reference")  # fmt: skip
    options["recombine"]("--background", dest="other", required=True, metavar="FILE",
                         help="the background; repeated or cut to fit")  # fmt: skip
    options["info"]("inputs", nargs="*", metavar="FILE",
                    help=f".dcc file, recording, bundle, run folder or {BUILT_IN}; "
                    "without any: this installation, for bug reports")  # fmt: skip
    options["export"]("run", metavar="RUN", help="run folder or bundle")
    options["export"]("output", metavar="OUT", help="folder to write; a README.md that you wrote there is kept")
    options["export"]("--half", action="store_true", help="store weights in half precision: half the size")
    options["export"]("--beam", type=_pair, metavar="S,N",
                      help="sequences of codes that the search over levels of speech and background keeps "
                      "(default: as trained); 1,1 is fastest, larger numbers sound better")  # fmt: skip
    options["export"]("--onnx", action="store_true", help="also write ONNX graphs, and check that they give what JAX "
                      "gives (needs the extra [onnx])")  # fmt: skip
    options["export"]("--int8", action="store_true", help="weights of the ONNX graphs in 8 bits: 15 MB in place of "
                      "26 for the package's model; implies --onnx")  # fmt: skip
    options["export"]("--check", nargs="+", action="extend", default=[], metavar="FILE",
                      help="also check that PyTorch gives the same codes and samples for these recordings; "
                      "ONNX is checked with them too")  # fmt: skip
    options["demo"]("--model", default=BUILT_IN, help=MODEL_HELP)
    options["demo"]("--int8", action="store_true", help="weights in 8 bits: a smaller download, slightly other codes")
    options["demo"]("--build", type=Path, metavar="OUT", help="write the page into this folder, which any static host "
                    "takes, and serve nothing")  # fmt: skip
    options["demo"]("--port", type=int, default=0, help="default: a free one")
    options["demo"]("--no-browser", action="store_true", help="say the address, but open no browser")
    _speaking(options["speak"])
    _preparing(options["prepare"])
    _tokenizing(options["tokenize"])
    _measuring(options["evaluate"], options["page"])
    return top


def _speaking(speak) -> None:
    """The options of the command that speaks."""
    speak("text", metavar="TEXT", help="in quotes, if it has spaces; write numbers out in words")
    speak("output", metavar="OUT", help="recording to write, at the model's rate")
    speak("--voice", required=True, metavar="FILE", help="the prompt: at least 0.5 s of the voice; 3 s are good")
    speak("--prompt-text", metavar="TEXT", help="what the prompt says; default: the text in the file beside it "
          "that ends in .txt, if there is one. With it, the models go on as the prompt began")  # fmt: skip
    speak("--background", default="drop", choices=("drop", "keep"), help="drop the prompt's background (default), or "
          "keep it, repeated as long as the speech")  # fmt: skip
    speak("--model-first", required=True, metavar="RUN", help="a run of configs/tts.py:..._ar or ..._parallel")
    speak("--model-nar", required=True, metavar="RUN", help="a run of configs/tts.py:..._nar")
    speak("--model", help="their codec, a bundle or run folder; default: the one that they were trained with")
    speak("--seed", type=int, default=0, help="another one gives another reading (default 0)")
    speak("--temperature", type=float, default=1.0, help="lower is less lively; 0: the likeliest codes (default 1)")
    speak("--top-p", type=float, default=0.9, metavar="P", help="draw from the likeliest codes, whose chances add up "
          "to P (default 0.9)")  # fmt: skip


def _preparing(prepare) -> None:
    """The options of the command that makes a corpus."""
    prepare("sources", nargs="+", metavar="SOURCE", help="folder, archive (.tar, .tar.gz; WebDataset), TFDS folder, "
            "or a bucket's pattern such as gs://bucket/*.tar; RECIPE=SOURCE for a corpus that is known by name: "
            "aishell3, libritts, vctk, wsj, esc50, dns_noise, librispeech, musan, demand, rirs")  # fmt: skip
    prepare("output", metavar="OUT", help="folder or bucket for the shards; run again, it does those that are missing")
    prepare("--kind", default="speech", choices=("speech", "background", "room"),
            help="of recordings whose source does not tell (default speech)")  # fmt: skip
    prepare("--rate", type=_positive, default=16_000, metavar="HZ", help="of the clips (default 16000)")
    prepare("--shard_mb", type=_positive, default=200, metavar="MB", help="about how large a shard is (default 200)")
    prepare("--longest", type=_seconds, default=30.0, metavar="S",
            help="split longer recordings at pauses (default 30)")  # fmt: skip
    prepare("--workers", type=_positive, metavar="N", help="processes on this machine; default: as many as cores")
    prepare("--runner", metavar="NAME", help="Beam's DirectRunner (default), DataflowRunner, FlinkRunner, SparkRunner; "
            "all other options of Beam may follow, written --name=value")  # fmt: skip


def _tokenizing(tokenize) -> None:
    """The options of the command that codes a corpus."""
    tokenize("source", metavar="SOURCE", help="folder with or without manifest.csv, or what `decodec prepare` wrote")
    tokenize("output", metavar="OUT", help="folder or bucket for the shards; run again, it does those that are missing")
    tokenize("--model", default=BUILT_IN, help=MODEL_HELP)
    tokenize("--format", default="parquet", choices=("parquet", "array_record"),
             help="parquet (default; for Hugging Face datasets and others) or array_record (for grain)")  # fmt: skip
    tokenize("--latents", action="store_true", help="write the speech embedding before quantization, too; downstream "
             "models can learn from it")  # fmt: skip
    tokenize("--shard_mb", type=_positive, default=256, metavar="MB", help="recordings in a shard (default 256 MB)")
    tokenize("--batch", type=_power_of_two, default=8, metavar="N",
             help="recordings side by side on a device (default 8); more make accelerators faster")  # fmt: skip
    tokenize("--threads", type=_positive, metavar="N", help="that read recordings; default: as many as cores")
    tokenize("--distributed", action="store_true", help="share the work with the other hosts of a TPU pod, Slurm or "
             "Kubernetes job; all run this command and write to the same OUT")  # fmt: skip
    tokenize("--share", type=_share, default=(0, 1), metavar="I/N", help="do share I, from 0, of N, where JAX "
             "does not know of hosts; on CPUs, two processes are faster than one")  # fmt: skip


def _measuring(evaluate, page) -> None:
    """The options of the commands that measure."""
    evaluate("--suite", nargs="+", action="extend", required=True, choices=SUITES, metavar="SUITE",
             help=" | ".join(SUITES))  # fmt: skip
    evaluate("--model", nargs="+", action="extend", default=[], metavar="[NAME=]MODEL",
             help="bundles or run folders, one column each; "
             f"default, if there are no baselines: {BUILT_IN}")  # fmt: skip
    page("--model", default=BUILT_IN, metavar="[NAME=]MODEL", help=MODEL_HELP)
    for option in (evaluate, page):
        option("--data", required=True, metavar="FOLDER",
               help='recordings with a test split in manifest.csv; "": synthetic')  # fmt: skip
        option("--out", required=True, type=Path, metavar="FOLDER", help="folder to write; files of the same names "
               "are replaced")  # fmt: skip
        option("--baselines", nargs="+", action="extend", default=[], metavar="NAME",
               help="other systems to compare with: mixture silence "
               "oracle noisereduce opus:8 ...; a wrong name lists all")  # fmt: skip
        option("--seconds", type=float, default=4.0, help="length of a mixture, seconds (default 4)")
        option("--continuous", action="store_true", help="measure every model a second time, its quantizers bypassed")
        option("--model-nar", default="", metavar="RUN", help="a run of configs/tts.py:..._nar, to convert voices too")
    evaluate("--model-first", default="", metavar="RUN", help="a run of configs/tts.py:..._ar or ..._parallel, for "
             "the suite synthesis, which needs both")  # fmt: skip
    evaluate("--voice", default="", metavar="FILE", help="the prompt of the suite synthesis; default: for each "
             "sentence another recording of its speaker")  # fmt: skip
    evaluate("--limit", type=int, metavar="N",
             help="number of mixtures at each SNR, clips and pairs (default 16), or sentences (default 20)")
    evaluate("--recogniser", nargs="+", action="extend", default=[], metavar="[NAME=]RUN",
             help="runs of configs/asr.py, for the suite recognition; one column each")  # fmt: skip
    evaluate("--whisper", default="", metavar="FOLDER", help="a Whisper for CTranslate2 or transformers, to measure "
             "word error rates; default: the one of pip install 'decodec_jax[judges]'")  # fmt: skip
    evaluate("--speaker", default="", metavar="FOLDER", help="WavLM's weights, to measure speaker similarity; default: "
             "Resemblyzer's, of pip install --no-deps Resemblyzer")  # fmt: skip
    page("--limit", type=int, default=1, metavar="N",
         help="number of mixtures at each SNR, clips and pairs (default 1)")  # fmt: skip
    page("--tables", default="", metavar="FOLDER", help="also show the tables that `decodec evaluate --out` wrote "
         "here, and play what the suite synthesis said")  # fmt: skip


def _pair(text: str) -> tuple[int, int]:
    try:
        speech, background = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a pair of numbers such as 4,2") from None
    return speech, background


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 up")
    return seconds


def _power_of_two(text: str) -> int:
    number = _positive(text)
    if number & (number - 1):
        raise argparse.ArgumentTypeError(f"{text} is not a power of two such as 8 or 64")
    return number


def _share(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not index.isdecimal() or not count.isdecimal() or not int(index) < int(count):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0/2, the first of two, or 1/2")
    return int(index), int(count)
