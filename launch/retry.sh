#!/usr/bin/env bash
# Run a command again until it has finished:
#
#   launch/retry.sh [--attempts N] [--pause SECONDS] [--dry-run] COMMAND [ARGUMENT ...]
#
# What becomes of the command's exit code:
#
#   0              finished
#   2, 126, 127    a mistake that another try would repeat: given up at once
#   75             interrupted with everything saved: run again, however often
#   any other      run again up to N - 1 times (20 attempts), after a pause that doubles from 10 s to 2 min
#
# SIGTERM and Ctrl-C reach the command as SIGTERM, and end the retrying: its exit code is the one returned.
set -uo pipefail

attempts=20 pause=10 longest=120 # s; below jax's 300 s of waiting for a host of the pod that starts late
dry_run=
while [ $# -gt 0 ]; do
  case $1 in
    --attempts) attempts=$2 && shift 2 ;;
    --pause) pause=$2 && shift 2 ;;
    --dry-run) dry_run=1 && shift ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || { echo "retry.sh: no command to run; see the head of $0" >&2 && exit 2; }
[ -z "$dry_run" ] || { printf '%q ' "$@" && echo && exit 0; }

child='' stopped='' interrupted=''
trap 'stopped=1 interrupted=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT

run() { # in the background: bash would look at a signal only after a command in the foreground has ended
  "$@" &
  child=$!
  [ -z "$stopped" ] || kill -TERM "$child" 2>/dev/null
  while # a signal ends the wait, not the command, which has yet to save
    interrupted=''
    wait "$child"
    code=$?
    [ -n "$interrupted" ]
  do :; done
  child=''
}

failures=0 wait_for=$pause
while true; do
  run "$@"
  case $code in
    0 | 2 | 126 | 127) exit "$code" ;;
    75) wait_for=$pause ;;
    *) failures=$((failures + 1)) ;;
  esac
  [ -z "$stopped" ] || exit "$code"
  if [ "$failures" -ge "$attempts" ]; then
    echo "retry.sh: exit code $code, failure $failures of $attempts: given up" >&2
    exit "$code"
  fi
  echo "retry.sh: exit code $code, failure $failures of $attempts: again in $wait_for s" >&2
  last=$code
  run sleep "$wait_for"
  [ -z "$stopped" ] || exit "$last"
  [ "$last" -eq 75 ] || wait_for=$((wait_for * 2 < longest ? wait_for * 2 : longest))
done
