# shellcheck shell=bash
# An S3 server on loopback for the contract tests of the object store: moto,
# from PyPI, in a Python environment of its own. It keeps everything in memory.

readonly S3_HOME=$DEV/venv
readonly S3_LOCK=$PROJECT/deploy/dev/moto.lock
readonly S3_FIRST_PORT=5171

s3_ensure() {
  if cmp --silent "$S3_LOCK" "$S3_HOME/.complete"; then
    say "S3 server: using $S3_HOME/bin/moto_server"
    return
  fi
  # Debian's python3 can make an environment only with this package.
  python3 -c 'import ensurepip, venv' 2>/dev/null || debian_install python3-venv
  say "S3 server: fetching $(sed -n 's/^moto\[.*\]==/moto /p' "$S3_LOCK") from PyPI into .dev/venv"
  rm -rf "$S3_HOME"
  if ! {
    python3 -m venv "$S3_HOME" &&
      "$S3_HOME/bin/pip" --disable-pip-version-check --quiet install --requirement "$S3_LOCK"
  } >"$LOG/pip.log" 2>&1; then
    tail -n 20 "$LOG/pip.log" >&2
    give_up "moto could not be fetched from PyPI; the last lines are above" \
      "make the machine's Python package index reachable"
  fi
  cp "$S3_LOCK" "$S3_HOME/.complete"
}

# Starts the server unless it runs.
s3_start() {
  local port
  server_running s3 && return
  port=$(port_from "$S3_FIRST_PORT")
  say "starting the S3 server on 127.0.0.1:$port"
  server_start s3 "$S3_HOME/bin/moto_server" --host 127.0.0.1 --port "$port"
  printf '%s\n' "127.0.0.1:$port" >"$RUN/s3.address"
  server_await s3 60 s3_answers
}

s3_answers() {
  curl --silent --fail --output /dev/null --max-time 5 "http://$(cat "$RUN/s3.address")/moto-api/"
}

# Any credentials will do, but clients want some.
s3_settings() {
  server_running s3 || return 0
  printf "export SLIPWAY_TEST_S3='http://%s'\n" "$(cat "$RUN/s3.address")"
  printf "export AWS_ACCESS_KEY_ID='test'\n"
  printf "export AWS_SECRET_ACCESS_KEY='test'\n"
}

s3_stop() {
  server_running s3 || return 0
  say "stopping the S3 server"
  server_stop s3 10
}
