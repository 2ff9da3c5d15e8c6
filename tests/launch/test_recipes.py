"""The recipes of launch/, tested without a cloud: what they print, and what they run, with stand-ins for programs."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = ["retry.sh", "tpu_vm.sh", "slurm.sbatch"]
SLICE = ["--zone", "us-east5-b", "--bucket", "my-bucket"]
# spaces, quotes and dollar signs, which a shell along the way could change
FLAGS = ["--config", "configs/decodec.py:tiny", "--workdir", "/b/o'brien's $HOME run", '--config.data.root=a "b" \\c']


@pytest.fixture
def stand_in(tmp_path):
    """`stand_in("gcloud", code)` makes a program of that name; `code` is Python and may use `argv` and `folder`.

    Returns an environment in which the program is found first. Every call is recorded, see `calls`.
    """
    programs = tmp_path / "bin"
    programs.mkdir()

    def make(name: str, code: str = "") -> dict[str, str]:
        note = f"open(folder / 'calls', 'a').write(json.dumps([{name!r}, *argv]) + '\\n')"
        head = f"import json, os, pathlib, sys\nargv, folder = sys.argv[1:], pathlib.Path({str(tmp_path)!r})\n{note}\n"
        (programs / name).write_text(f"#!{sys.executable}\n{head}{code}\n")
        (programs / name).chmod(0o755)
        return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    return make


def calls(folder: Path) -> list[list[str]]:
    """The recorded calls of the stand-ins, each with its arguments."""
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def launch(script: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 30} | options
    return subprocess.run(["bash", str(LAUNCH / script), *arguments], **options)


def words(text: str) -> list[list[str]]:
    """The commands in a shell script, split into words by bash itself."""
    show = f"show() {{ printf '%s\\0' \"$@\"; printf '\\n\\0'; }}\n{text}"
    parts = subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=True).stdout.split("\0")
    commands = [[]]
    for part in parts[:-1]:
        if part == "\n":
            commands.append([])
        else:
            commands[-1].append(part)
    return commands[:-1]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_valid_bash_and_executable(script):
    assert subprocess.run(["bash", "-n", str(LAUNCH / script)]).returncode == 0
    assert os.access(LAUNCH / script, os.X_OK)


# --- retry.sh ---------------------------------------------------------------------------------------------------------


def exits(*codes: int) -> str:
    """Body of a stand-in that exits with each code in turn."""
    return (
        "tries = len([line for line in open(folder / 'calls') if '\"train\"' in line])\n"
        f"sys.exit({list(codes)}[min(tries, {len(codes)}) - 1])"
    )


@pytest.mark.parametrize(
    ("codes", "options", "returned", "tries"),
    [
        ([0], [], 0, 1),
        ([2], [], 2, 1),
        ([127], [], 127, 1),
        ([1, 134, 0], [], 0, 3),
        ([1, 2], [], 2, 2),
        ([1, 75, 75, 75, 75, 1, 0], ["--attempts", "3"], 0, 7),  # an interruption does not count as a failure
        ([1], ["--attempts", "3"], 1, 3),
    ],
)
def test_retry_depends_on_the_exit_code(stand_in, tmp_path, codes, options, returned, tries):
    environment = stand_in("train", exits(*codes))
    outcome = launch("retry.sh", "--pause", "0", *options, "train", *FLAGS, env=environment)
    assert outcome.returncode == returned
    assert calls(tmp_path) == [["train", *FLAGS]] * tries


def test_retry_waits_longer_each_time_up_to_two_minutes(stand_in, tmp_path):
    environment = stand_in("train", "sys.exit(1)")
    stand_in("sleep")
    assert launch("retry.sh", "--attempts", "7", "train", env=environment).returncode == 1
    pauses = [int(call[1]) for call in calls(tmp_path) if call[0] == "sleep"]
    assert pauses == [10, 20, 40, 80, 120, 120]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_retry_passes_a_signal_on_and_waits_for_the_command_to_save(stand_in, tmp_path, number):
    saving = """
import signal, time
def save(*_):
    time.sleep(0.5)
    (folder / 'saved').touch()
    os._exit(75)
signal.signal(signal.SIGTERM, save)
(folder / 'ready').touch()
time.sleep(30)
"""
    environment = stand_in("train", saving)
    # tests in the background of a shell ignore SIGINT, and a script inherits that and cannot undo it
    heard = ["env", f"--default-signal={number.name.removeprefix('SIG')}", LAUNCH / "retry.sh", "train"]
    process = subprocess.Popen(heard, env=environment, stderr=subprocess.PIPE)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=20) == 75
    assert (tmp_path / "saved").exists()
    assert len(calls(tmp_path)) == 1


def test_retry_ends_at_once_on_a_signal_between_two_attempts(stand_in, tmp_path):
    environment = stand_in("train", "sys.exit(9)")
    command = [LAUNCH / "retry.sh", "--pause", "60", "train"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert "again in 60 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 9


def test_retry_dry_run_prints_the_command_and_a_missing_command_is_an_error():
    outcome = launch("retry.sh", "--dry-run", "python", "launch/train.py", *FLAGS)
    assert words(f"show {outcome.stdout}") == [["python", "launch/train.py", *FLAGS]]
    assert launch("retry.sh").returncode == 2


# --- tpu_vm.sh --------------------------------------------------------------------------------------------------------


def as_called(printed: str) -> list[list[str]]:
    """The calls in the output of a dry run."""
    return words('gcloud() { show gcloud "$@"; }\ngit() { show git "$@"; }\n' + printed)


def test_tpu_dry_run_prints_all_commands():
    outcome = launch("tpu_vm.sh", "run", *SLICE, "--type", "v5litepod-16", "--spot", "--dry-run", "--", *FLAGS)
    assert outcome.returncode == 0
    commands = as_called(outcome.stdout)
    assert [" ".join(command[:5]).split(" --")[0] for command in commands] == [
        "gcloud compute tpus queued-resources create",
        "gcloud compute tpus queued-resources list",
        f"git -C {LAUNCH}/.. archive",
        "gcloud compute tpus tpu-vm scp",
        "gcloud compute tpus tpu-vm ssh",  # install
        "gcloud compute tpus tpu-vm ssh",  # train
        "gcloud compute tpus tpu-vm ssh",  # status
        "gcloud compute tpus queued-resources delete",
    ]
    create = commands[0]
    assert {"--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"} <= set(create)
    assert all("--zone=us-east5-b" in command for command in commands if command[0] == "gcloud")
    assert all("--worker=all" in command for command in commands[3:7])
    for command in commands[4:7]:
        remote = command[-1].removeprefix("--command=")
        assert subprocess.run(["bash", "-n", "-c", remote]).returncode == 0
    install = commands[4][-1]
    assert "./decodec_jax[tpu]" in install
    assert "--metadata-cache-ttl-secs=0 my-bucket /bucket" in install


def test_tpu_workers_get_the_flags_unchanged(stand_in, tmp_path):
    """The flags pass through this shell, gcloud, the worker's shell, a file and systemd."""
    environment = stand_in("gcloud", "[c] = [a[10:] for a in argv if a[:10] == '--command=']; os.system(c)")
    stand_in("sudo", "os.execvp(argv[0], argv) if argv[0] == 'systemd-run' else None")
    stand_in("systemd-run", "os.chdir(folder); os.execvp(argv[-2], argv[-2:])")
    program = tmp_path / "launch" / "retry.sh"
    program.parent.mkdir()
    program.symlink_to(tmp_path / "bin" / "retry")
    stand_in("retry")
    # os.system runs sh, which a worker's login shell may be too
    assert launch("tpu_vm.sh", "train", *SLICE, "--", *FLAGS, env=environment, cwd=tmp_path).returncode == 0
    assert calls(tmp_path)[-1] == ["retry", ".venv/bin/python", "launch/train.py", *FLAGS]
    [unit] = [call for call in calls(tmp_path) if call[0] == "systemd-run"]
    assert {"--unit=decodec", "--remain-after-exit", "--property=KillMode=mixed"} <= set(unit)


def cloud(*looks: tuple[str, str]) -> str:
    """Body of a stand-in for gcloud: each poll by `run` gets the next state of the request and lines of the workers."""
    return f"""
looks = {list(looks)}
seen = [json.loads(line)[1:] for line in open(folder / 'calls')]
look = looks[min(sum(call[3] == 'list' for call in seen), len(looks)) - 1]
if argv[3] == 'list':
    print(look[0])
if any('systemctl show' in word for word in argv):
    print(look[1])
"""


def steps(folder: Path) -> list[str]:
    """The actions of `run`, without its polling."""
    done = []
    for call in calls(folder):
        if call[0] == "gcloud" and call[4] in ("create", "delete"):
            done.append(call[4])
        elif call[0] == "gcloud" and "systemd-run" in call[-1]:
            done.append("train")
        elif call[0] == "gcloud" and "uv venv" in call[-1]:
            done.append("install")
    return done


@pytest.mark.parametrize(
    ("looks", "returned", "done"),
    [
        (
            [("", ""), ("WAITING_FOR_RESOURCES", ""), ("ACTIVE", "dead 0\ndead 0"), ("ACTIVE", "running 0\nrunning 0"),
             ("SUSPENDING", ""), ("SUSPENDED", ""), ("", ""), ("ACTIVE", ""), ("ACTIVE", "dead 0\ndead 0"),
             ("ACTIVE", "exited 0\nrunning 0"), ("ACTIVE", "exited 0\nexited 0")],
            0, ["create", "install", "train", "delete", "create", "install", "train", "delete"],
        ),
        ([("ACTIVE", "running 0\nfailed 2")], 2, []),  # the slice is kept, for a corrected command
        ([("ACTIVE", "failed 1\nfailed 134")], 1, []),
        ([("ACTIVE", "running 0\ndead 0"), ("ACTIVE", "exited 0\nexited 0")], 0, ["install", "train", "delete"]),
        ([("FAILED", ""), ("", ""), ("ACTIVE", "exited 0")], 0, ["delete", "create", "delete"]),
    ],
)  # fmt: skip
def test_tpu_run_restarts_until_training_has_finished(stand_in, tmp_path, looks, returned, done):
    environment = stand_in("gcloud", cloud(*looks))
    stand_in("git")
    outcome = launch("tpu_vm.sh", "run", *SLICE, "--every", "0", "--", *FLAGS, env=environment)
    assert outcome.returncode == returned, outcome.stderr
    assert steps(tmp_path) == done
    assert ("delete --zone us-east5-b" in outcome.stderr) == (returned != 0)  # how to stop paying


def test_tpu_run_tolerates_gcloud_errors(stand_in, tmp_path):
    twice = "if len(list(open(folder / 'calls'))) < 3: sys.exit(1)"
    environment = stand_in("gcloud", twice + cloud(*[("ACTIVE", "exited 0")]))
    assert launch("tpu_vm.sh", "run", *SLICE, "--every", "0", "--", *FLAGS, env=environment).returncode == 0
    assert steps(tmp_path) == ["delete"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["fly"], "fly"),
        (["create"], "--zone"),
        (["create", "--zone"], "--zone"),
        (["create", "--zone", "z", "--type", "v9-8"], "v9-8"),
        (["create", "--zone", "z", "--config"], "--config"),
        (["install", "--zone", "z"], "--bucket"),
        (["train", "--zone", "z"], "flags"),
        (["train", "--zone", "z", "--", "--workdir=gs://bucket/run"], "gs://"),
    ],
)
def test_tpu_mistakes_are_reported_before_anything_runs(stand_in, tmp_path, arguments, named):
    outcome = launch("tpu_vm.sh", *arguments, env=stand_in("gcloud"))
    assert outcome.returncode == 2
    assert named in outcome.stderr.splitlines()[-1]
    assert not (tmp_path / "calls").exists()


# --- slurm.sbatch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "restarts", "returned", "requeued"),
    [(0, 0, 0, False), (2, 0, 2, False), (75, 0, 0, True), (75, 99, 0, True), (134, 19, 0, True), (1, 20, 1, False)],
)  # fmt: skip
def test_slurm_requeues_depending_on_the_exit_code(stand_in, tmp_path, code, restarts, returned, requeued):
    environment = stand_in("srun", f"sys.exit({code})")
    stand_in("scontrol")
    environment |= {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts), "SLURM_CPUS_PER_TASK": "12"}
    outcome = launch("slurm.sbatch", *FLAGS, env=environment)
    assert outcome.returncode == returned
    srun, *others = calls(tmp_path)
    assert srun[-len(FLAGS) :] == FLAGS
    assert "--cpus-per-task=12" in srun
    assert others == ([["scontrol", "requeue", "7"]] if requeued else [])


def test_slurm_requests_one_process_per_gpu_and_time_to_save():
    text = (LAUNCH / "slurm.sbatch").read_text()
    head = [line for line in text.partition("\nset ")[0].splitlines() if not line.startswith("#!")]
    assert all(line.startswith("#") for line in head)  # sbatch ignores options below the first command
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in head if line.startswith("#SBATCH "))
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("TERM@")
    assert "requeue" in options


# --- GKE and the image ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())


def pod_of(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_jobset_restarts_all_hosts_together_and_never_after_a_mistake(jobset):
    policy, job = jobset["spec"]["failurePolicy"], jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert policy["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    assert policy["restartStrategy"] == "BlockingRecreate"
    [rule] = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
    assert rule["onExitCodes"]["containerName"] == pod_of(jobset)["containers"][0]["name"]
    assert pod_of(jobset)["restartPolicy"] == "Never"  # required by a pod failure policy
    assert job["backoffLimit"] == 0


def test_jobset_has_hosts_for_all_chips_and_every_volume_that_it_mounts(jobset):
    job, pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"], pod_of(jobset)
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    [container] = pod["containers"]
    assert job["parallelism"] == job["completions"]
    assert job["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == rows * columns
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_readmes_gpu_pod_has_the_same_structure_as_the_manifest(jobset):
    [fragment] = fenced("yaml")
    gpu, tpu = yaml.safe_load(fragment), pod_of(jobset)
    assert set(gpu) <= set(tpu)
    assert gpu["containers"][0]["name"] == tpu["containers"][0]["name"]


def test_the_image_contains_only_what_training_needs():
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignore[0] == "*"
    kept = {line[1:] for line in ignore if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]} - {"."}
    assert copied <= kept
    assert {"configs", "decodec_jax", "launch"} <= kept
    [user] = [line.split()[1] for line in lines if line.startswith("USER")]
    assert user != "root"
    [entry] = [json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT")]
    assert entry == ["launch/retry.sh", "python", "launch/train.py"]


# --- every training command, parsed by launch/train.py ----------------------------------------------------------------


def fenced(language: str) -> list[str]:
    """Code blocks of launch/README.md."""
    parts = (LAUNCH / "README.md").read_text().split("```")[1::2]
    return [part.partition("\n")[2] for part in parts if part.partition("\n")[0] == language]


def training_flags() -> list[list[str]]:
    """The flags of all training commands in the recipes and in launch/README.md."""
    container = pod_of(yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text()))["containers"][0]
    assert container["command"] == ["python", "launch/train.py"]
    found = [container["args"]]
    for line in "\n".join(fenced("")).splitlines():
        if "VARIANT" not in line and "--workdir" in line:
            typed = shlex.split(line)
            found.append(typed[typed.index("--config") :])
    text = (LAUNCH / "Dockerfile").read_text() + (LAUNCH / "slurm.sbatch").read_text()
    typed = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#") and "--workdir" in line]
    return found + [shlex.split(line)[shlex.split(line).index("--config") :] for line in typed]


def test_train_py_accepts_every_training_command():
    commands = training_flags()
    assert len(commands) == 6
    parse = (
        "import json, os, runpy, sys\n"
        "import jax\n"  # configs/decodec.py needs it; imported once, before the forks
        "for flags in json.loads(sys.argv[1]):\n"
        "    if (child := os.fork()) == 0:\n"  # flags can be parsed only once per process
        "        sys.argv = ['train.py', *flags]\n"  # where config_flags looks for --config.SECTION.NAME
        "        module = runpy.run_path('launch/train.py')\n"
        "        assert module['parser'](module['CONFIG'])(sys.argv) == ['train.py'], flags\n"
        "        assert module['WORKDIR'].value.startswith(('/', 'runs')), flags\n"
        "        sys.stdout.flush()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, flags\n"
    )
    command = [sys.executable, "-c", parse, json.dumps(commands)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
