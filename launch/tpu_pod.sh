#!/usr/bin/env bash
# Trains on a TPU pod slice of Google Cloud: requests it, runs, and deletes it. Runs on
# your own machine; needs git, gcloud and bash >= 3.2 (that of macOS). docs/launch.md has
# more.

set -uo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'END'
usage: launch/tpu_pod.sh COMMAND --project=P --zone=Z --name=N [OPTIONS] [-- FLAGS]

Runs experiments/main.py with FLAGS (--config=FILE, then overrides) on all hosts of a TPU.

commands
  up      ask for the TPU, or take the one of that name, and wait for it
  sync    send the tracked files and install .[tpu] on all hosts
  run     train; when the TPU is preempted, request it again and resume
  fetch   copy the work folder here
  down    give the TPU back
  all     all of these; gives the TPU back whatever happens

options
  --project=P      project of Google Cloud
  --zone=Z         such as us-west4-a
  --name=N         of the TPU; choose one
  --type=T         up, run, all: accelerator, such as v5litepod-16
  --runtime=R      up, run, all: its software, such as v2-alpha-tpuv5-lite
  --spot           ask for spare capacity, which is cheaper and may be taken away
  --workdir=gs://  run, fetch, all: folder of all results, in a bucket
  --results=DIR    fetch, all: where to copy it
  --restarts=N     run, all: largest number of restarts (20)
  --dry_run        print every command, run none
  --help           print this

example
  launch/tpu_pod.sh all --project=my-lab --zone=us-west4-a --name=cells \
    --type=v5litepod-16 --runtime=v2-alpha-tpuv5-lite --spot \
    --workdir=gs://my-bucket/cells --results=runs/cells -- --config=configs/cell_flip.py
END
}

fail() {
  echo "error: $1" >&2
  exit 2
}

stop() {
  echo "error: $1" >&2
  exit 1
}

parse() {
  command='' project='' zone='' name='' type='' runtime='' spot='' workdir=''
  results='' restarts=20 dry_run='' flags=()
  while (($#)); do
    case $1 in
      --help) usage && exit 0 ;;
      --) shift && flags=("$@") && break ;;
      --project=* | --zone=* | --name=* | --type=* | --runtime=* | --workdir=* | \
        --results=* | --restarts=*)
        local option=${1%%=*}
        printf -v "${option#--}" '%s' "${1#*=}"
        ;;
      --spot) spot=yes ;;
      --dry_run) dry_run=yes ;;
      up | sync | run | fetch | down | all)
        [[ -z $command ]] || fail "'$1': expected one command, got $command before"
        command=$1
        ;;
      *) fail "'$1': unknown; flags of experiments/main.py go after --; see --help" ;;
    esac
    shift
  done
  [[ -n $command ]] || fail 'no command: expected up, sync, run, fetch, down or all'
}

given() {
  local option
  for option in "$@"; do
    [[ -n ${!option} ]] || fail "--$option: not given; see --help"
  done
}

check() {
  given project zone name
  case $command in
    up) given type runtime ;;
    run) given type runtime workdir ;;
    fetch) given workdir results ;;
    all) given type runtime workdir results ;;
  esac
  [[ -z $workdir || $workdir == gs://?* ]] ||
    fail "--workdir: got '$workdir', expected gs://BUCKET/FOLDER, which all hosts see"
  [[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts: got '$restarts', expected a count"
  [[ ! $command =~ ^(run|all)$ || " ${flags[*]-}" == *' --config='* ]] ||
    fail '--config: not given, expected -- --config=FILE'
}

# Its arguments as one line that a shell reads back as the same words.
quoted() {
  local word line='' quote="'" escaped="'\\''"
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@%+,~-]+$ ]]; then
      line+="$word "
    else
      line+="'${word//$quote/$escaped}' "
    fi
  done
  echo "${line% }"
}

# Prints a command, then runs it unless this is a dry run.
perform() {
  echo "+ $(quoted "$@")"
  [[ -n $dry_run ]] || "$@"
}

tpu() {
  perform gcloud compute tpus "$@" --project="$project" --zone="$zone"
}

on_all_hosts() {
  tpu tpu-vm ssh "$name" --worker=all --command="$1"
}

# Sets `state`: empty if there is no such TPU. A dry run takes it to be there once asked
# for.
look() {
  local query=(gcloud compute tpus queued-resources list "--filter=name~/$name\$"
    '--format=value(state.state)' "--project=$project" "--zone=$zone")
  echo "+ $(quoted "${query[@]}")"
  if [[ -n $dry_run ]]; then
    state=${pretended:-}
  else
    state=$("${query[@]}")
  fi
}

ask() {
  local tier=()
  [[ -z $spot ]] || tier=(--spot)
  tpu queued-resources create "$name" --node-id="$name" --accelerator-type="$type" \
    --runtime-version="$runtime" ${tier[@]+"${tier[@]}"} ||
    stop "--name: gcloud could not ask for '$name'"
  pretended=ACTIVE
}

down() {
  tpu queued-resources delete "$name" --force --quiet
  pretended=''
}

up() {
  while true; do
    look || stop "--name: gcloud could not look for '$name'"
    case $state in
      ACTIVE) return ;;
      '') ask ;;
      SUSPENDED) down || stop "--name: gcloud could not delete '$name'" ;;
      FAILED) stop "--name: no TPU for '$name'; ask gcloud why, then run the command down" ;;
      *) echo "$name: $state" && sleep 30 ;;
    esac
  done
}

# Packs the tracked files as they are now, so that a restart runs the same code.
pack() {
  local commit=''
  if [[ -z $dry_run ]]; then
    commit=$(git -C "$ROOT" -c user.name=launch -c user.email=launch stash create)
  fi
  perform git -C "$ROOT" archive --format=tar.gz --output="$archive" "${commit:-HEAD}" ||
    stop 'git could not pack the tracked files'
}

leave() {
  [[ -n $dry_run ]] || rm -f "$archive"
  [[ $command != all ]] || down
}

# The hosts come with a Python that is too old; uv brings one.
# shellcheck disable=SC2016 # the hosts expand it
INSTALL='rm -rf metaseg && mkdir metaseg && tar -xzf metaseg.tgz -C metaseg && cd metaseg
python3 -m pip install --quiet --user uv && export PATH=$HOME/.local/bin:$PATH
uv venv --quiet --allow-existing --python=3.12 ../metaseg-venv &&
VIRTUAL_ENV=../metaseg-venv uv pip install --quiet --constraint=requirements.lock \
  --editable=".[tpu]"'

send() {
  tpu tpu-vm scp "$archive" "$name:metaseg.tgz" --worker=all ||
    stop "'$name': could not send the files to all hosts"
  on_all_hosts "$INSTALL" || stop "'$name': could not install on all hosts"
}

# A process that a lost connection left behind holds the TPU: it saves and ends first.
# shellcheck disable=SC2016 # the hosts expand it
SUCCEED='cd metaseg; left=$(cat ../metaseg.pid 2>/dev/null)
if [ -n "$left" ] && kill -TERM "$left" 2>/dev/null; then
  timeout 300 tail --pid="$left" -f /dev/null
fi
echo $$ >../metaseg.pid'

train() {
  on_all_hosts "$SUCCEED
exec ../metaseg-venv/bin/python experiments/main.py --distributed $(
    quoted "${flags[@]}" --workdir="$workdir"
  )"
}

# Trains until the run is finished, through preemptions. gcloud hands on the status of
# the first host that failed; its own, when a connection is lost, is 255. When a host is
# lost the others end with 76, or by an abort of jax with 134.
run() {
  local restart status
  for ((restart = 0; ; restart++)); do
    train
    status=$?
    case $status in
      0 | 2) return "$status" ;;
      75 | 76 | 134 | 255) ;;
      *) # a bug, unless the TPU is gone
        sleep 60
        look || return "$status"
        [[ $state != ACTIVE ]] || return "$status"
        ;;
    esac
    ((restart < restarts)) || break
    echo "$name: stopped with status $status; restart $((restart + 1)) of $restarts"
    up
    send
  done
  echo "error: not finished after $restarts restarts; run it again to resume" >&2
  return 75
}

fetch() {
  perform mkdir -p "$results"
  perform gcloud storage rsync "$workdir" "$results" --recursive --project="$project"
}

all() {
  up
  send
  run && fetch
}

main() {
  parse "$@"
  check
  case $command in
    sync | run | all)
      archive=${TMPDIR:-/tmp}/metaseg-$name-$$.tgz
      trap leave EXIT
      pack
      ;;
  esac
  case $command in
    sync) send ;;
    *) "$command" ;;
  esac
}

main "$@"
