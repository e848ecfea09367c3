# shellcheck shell=bash
# What every part of the dev set-up needs: where things lie, how it speaks,
# how it gives up. Sourced, never run.

PROJECT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd -P)
readonly PROJECT
# shellcheck disable=SC2034 # each script uses its part of these
readonly DEV=$PROJECT/.dev BIN=$PROJECT/.dev/bin RUN=$PROJECT/.dev/run LOG=$PROJECT/.dev/log
# The dev set-up cannot work on this machine (EX_UNAVAILABLE of sysexits.h).
readonly UNAVAILABLE=69

# Debian keeps iptables, ip and runc where a plain user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'dev: %s\n' "$*" >&2; }

# give_up REASON REMEDY: the one message of a machine where this cannot work.
give_up() {
  printf 'dev: %s\n     Remedy: %s\n' "$1" "$2" >&2
  exit "$UNAVAILABLE"
}

have() { command -v "$1" >/dev/null 2>&1; }

# version_at_least HAVE WANT
version_at_least() {
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# file_is FILE SHA256
file_is() {
  [[ -f $1 ]] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status
}

# One change of the dev folder at a time, whoever runs the scripts.
# locked COMMAND...; server_start keeps the lock from the servers it starts.
locked() {
  mkdir -p "$DEV"
  exec {DEV_LOCK}>"$DEV/lock"
  flock "$DEV_LOCK"
  "$@"
  exec {DEV_LOCK}>&-
}
