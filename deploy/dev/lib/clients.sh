# shellcheck shell=bash
# Daytona's own clients, unmodified, for the tests that drive Slipway with them:
# the SDK for Python from PyPI and the one for TypeScript from npm, at pinned
# versions, each in a folder of its own below .dev/clients. Beside them the tester
# of APIs that reads Slipway's description, schemathesis.

readonly CLIENTS=$DEV/clients
readonly CLIENTS_LOCKS=$PROJECT/deploy/dev/clients

clients_ensure() {
  mkdir -p "$CLIENTS"
  clients_python python daytona
  clients_python schemathesis schemathesis
  clients_node
}

# clients_python FOLDER PACKAGE: what FOLDER.lock lists, in an environment of its own.
clients_python() {
  local home=$CLIENTS/$1 lock=$CLIENTS_LOCKS/$1.lock
  cmp --silent "$lock" "$home/.complete" && return
  # Debian's python3 can make an environment only with this package.
  python3 -c 'import ensurepip, venv' 2>/dev/null || debian_install python3-venv
  say "clients: fetching $(sed -n "s/^$2==/$2 /p" "$lock") from PyPI into .dev/clients/$1"
  rm -rf "$home"
  if ! {
    python3 -m venv "$home" &&
      "$home/bin/pip" --disable-pip-version-check --quiet install --requirement "$lock"
  } >"$LOG/clients.log" 2>&1; then
    tail -n 20 "$LOG/clients.log" >&2
    give_up "$2 could not be fetched from PyPI; the last lines are above" \
      "make the machine's Python package index reachable"
  fi
  cp "$lock" "$home/.complete"
}

clients_node() {
  local home=$CLIENTS/node lock=$CLIENTS_LOCKS/package-lock.json
  need node nodejs
  need npm npm
  cmp --silent "$lock" "$home/.complete" && return
  say "clients: fetching $(sed -n 's/.*"\(@daytona\/sdk\)": "\(.*\)"/\1 \2/p' \
    "$CLIENTS_LOCKS/package.json") from npm into .dev/clients/node"
  rm -rf "$home" && mkdir -p "$home"
  cp "$CLIENTS_LOCKS/package.json" "$lock" "$home"
  if ! (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund) >"$LOG/clients.log" 2>&1; then
    tail -n 20 "$LOG/clients.log" >&2
    give_up "Daytona's SDK could not be fetched from npm; the last lines are above" \
      "make the machine's npm registry reachable"
  fi
  cp "$lock" "$home/.complete"
}
