#!/usr/bin/env bash
# Train on a Cloud TPU slice of one or many hosts, from any machine with gcloud. launch/README.md tells the whole way.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh ACTION --zone ZONE [OPTION ...] [-- FLAG ...]

  run       all that follows until training has finished, from the start after every preemption; then delete
  create    queue the request for the slice, and return
  install   this commit of the checkout, and the bucket as the folder /bucket, on every worker
  train     launch/train.py FLAG ... on every worker, under launch/retry.sh; it goes on when this script ends
  status    the state of the request, and of training on each worker
  log       what worker 0 says, as it says it
  stop      save and stop training; `train` resumes it
  delete    give the slice back

  --zone ZONE       where there are such slices
  --name NAME       of the slice (decodec)
  --type TYPE       its kind and size: v6e-16, v5litepod-16 (v5e), v5p-16, v4-16 (v6e-16)
  --spot            cheaper, and may be taken away at any moment
  --bucket BUCKET   Cloud Storage bucket with the data and the runs: install and run need it
  --every SECONDS   between two looks of `run` (60)
  --dry-run         print the commands, run none
TEXT
}

fail() {
  echo "tpu_vm.sh: $1" >&2
  exit 2
}

case ${1:-} in
  run | create | install | train | status | log | stop | delete) action=$1 && shift ;;
  -h | --help) usage && exit 0 ;;
  *) usage >&2 && fail "${1:-nothing} is not an action" ;;
esac
name=decodec zone='' type=v6e-16 spot='' bucket='' every=60 dry_run=''
while [ $# -gt 0 ]; do
  case $1 in
    --name | --zone | --type | --bucket | --every)
      [ $# -gt 1 ] || fail "$1 needs a value"
      case $1 in
        --name) name=$2 ;; --zone) zone=$2 ;; --type) type=$2 ;; --bucket) bucket=$2 ;; --every) every=$2 ;;
      esac
      shift 2
      ;;
    --spot) spot=--spot && shift ;;
    --dry-run) dry_run=1 && shift ;;
    --) shift && break ;;
    *) fail "$1 is not an option; flags of launch/train.py stand after --" ;;
  esac
done
[ -n "$zone" ] || fail "--zone is missing"
case $action in
  install | run) [ -n "$bucket" ] || fail "--bucket is missing" ;;
esac
case $action in
  train | run)
    [ $# -gt 0 ] || fail "the flags of launch/train.py are missing; they stand after --"
    case "$*" in *gs://*) fail "launch/train.py takes folders: write /bucket/... in place of gs://BUCKET/..." ;; esac
    ;;
esac
case $type in
  v6e-*) image=v2-alpha-tpuv6e ;;
  v5litepod-*) image=v2-alpha-tpuv5-lite ;;
  v5p-*) image=v2-alpha-tpuv5 ;;
  v4-* | v3-* | v2-*) image=tpu-ubuntu2204-base ;;
  *) fail "--type is $type; it must begin with v6e-, v5litepod-, v5p- or v4-" ;;
esac

quote() { # arguments as words of any shell, left bare where that is safe
  local word line=''
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'$(printf %s "$word" | sed "s/'/'\\\\''/g")'" ;;
    esac
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

run() {
  if [ -n "$dry_run" ]; then quote "$@"; else "$@"; fi
}

on_workers() { # WORKERS COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

create() {
  run gcloud compute tpus queued-resources create "$name" --zone="$zone" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$image" ${spot:+"$spot"}
}

# The image's own Python is too old. A bucket that many hosts write to must not be remembered: on large machines gcsfuse
# keeps what it knows of files for ever by default.
install() {
  local archive=${TMPDIR:-/tmp}/decodec_jax.tgz
  run git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD &&
    run gcloud compute tpus tpu-vm scp "$archive" "$name":decodec_jax.tgz --zone="$zone" --worker=all &&
    on_workers all "set -eu
rm -rf decodec_jax && mkdir decodec_jax
tar -xzf decodec_jax.tgz -C decodec_jax
curl -LsSf https://astral.sh/uv/install.sh | sh
.local/bin/uv venv --quiet --python 3.12 decodec_jax/.venv
.local/bin/uv pip install --quiet --python decodec_jax/.venv/bin/python --editable './decodec_jax[tpu]'
if ! command -v gcsfuse; then
  key=/usr/share/keyrings/cloud.google.asc
  curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee \$key > /dev/null
  echo \"deb [signed-by=\$key] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main\" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 install gcsfuse
fi
if ! mountpoint -q /bucket; then
  sudo install -d -o \$(id -un) /bucket
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 $(quote "$bucket") /bucket
fi"
}

# A unit of systemd outlives the connection, has a log, and is told of a preemption by SIGTERM: KillMode=mixed sends
# that to retry.sh alone, which passes it on. The command waits in a file, where systemd does not expand its dollars.
train() {
  local command
  command=$(quote exec launch/retry.sh .venv/bin/python launch/train.py "$@")
  on_workers all "set -eu
sudo systemctl stop decodec 2> /dev/null || true
sudo systemctl reset-failed decodec 2> /dev/null || true
printf '%s\n' $(quote "$command") > train.sh
sudo systemd-run --unit=decodec --remain-after-exit --uid=\$(id -u) --gid=\$(id -g) --setenv=HOME=\$HOME \\
  --working-directory=\$HOME/decodec_jax --property=KillMode=mixed --property=TimeoutStopSec=300 \\
  --property=LimitMEMLOCK=infinity /bin/bash \$HOME/train.sh"
}

request() { # its state; nothing where there is none
  run gcloud compute tpus queued-resources list --zone="$zone" --filter="name ~ \"/$name\$\"" \
    --format='value(state.state)'
}

training() { # one line for each worker: dead, running, exited or failed, and the exit code
  local show='systemctl show decodec --value --property'
  on_workers all "echo \$($show=SubState) \$($show=ExecMainStatus)"
}

show_log() {
  on_workers 0 'sudo journalctl --unit=decodec --output=cat --lines=50 --follow'
}

stop() {
  on_workers all 'sudo systemctl stop decodec'
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet
}

run_until_finished() {
  local state workers said='' code=''
  if [ -n "$dry_run" ]; then
    create && request && install && train "$@" && training && delete
    return
  fi
  while [ -z "$code" ]; do
    state=$(request) || state='gcloud failed; trying again'
    case $state in
      '') create || state='request refused; trying again' ;;
      SUSPENDED | FAILED) delete || true ;; # preempted, or never there: the next look asks anew
      ACTIVE)
        workers=$(training) || workers=''
        if grep -qx 'failed 2' <<< "$workers"; then
          code=2 state='training ended with a mistake that another try would repeat'
        elif grep -q '^dead ' <<< "$workers"; then # on new workers, and on one that has rebooted
          install && train "$@" && state='training started'
        elif grep -q '^running ' <<< "$workers"; then
          state='training'
        elif grep -q '^exited ' <<< "$workers"; then
          delete && code=0 state='finished'
        elif grep -q '^failed ' <<< "$workers"; then
          code=1 state='training failed or was stopped'
        fi
        ;;
    esac
    [ "$state" = "$said" ] || echo "$(date '+%F %T')  ${state:-requested}"
    said=$state
    [ -n "$code" ] || sleep "$every"
  done
  if [ "$code" -ne 0 ]; then
    on_workers 0 'sudo journalctl --unit=decodec --output=cat --lines=20' || true
    echo "tpu_vm.sh: $state; the slice is still there, and costs, until: $0 delete --zone $zone --name $name" >&2
  fi
  return "$code"
}

case $action in
  run) run_until_finished "$@" ;;
  status) request && training ;;
  log) show_log ;;
  train) train "$@" ;;
  *) "$action" ;;
esac
