# shellcheck shell=bash
# A scheduler, workers and the nats-server beneath them, on a folder and on ports
# of their own, with exactly the settings that a measurement wants.

# What runs, in the order of its start.
FLEET=()

fleet_stop() {
  trap '' INT TERM HUP
  local n
  # Workers and scheduler first: they finish what they do over NATS.
  for ((n = ${#FLEET[@]} - 1; n >= 0; n--)); do
    kill -TERM "${FLEET[n]}" 2>/dev/null || continue
    wait "${FLEET[n]}" || true
  done
  FLEET=()
  trap - INT TERM HUP
}

fleet_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# fleet_serve LOG WORDS COMMAND...: starts a process and waits until its log has WORDS.
fleet_serve() {
  local log=$1 words=$2 pid
  shift 2
  : >"$log"
  "$@" </dev/null >"$log" 2>&1 &
  pid=$!
  FLEET+=("$pid")
  until grep -q -- "$words" "$log"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      tail -n 20 "$log" >&2
      say "$(basename "$log" .log) ended before it served; the end of its log is above"
      exit 1
    fi
    sleep 0.05
  done
}

# fleet_start DATA SYNC REGION...: nats-server, which syncs as SYNC says (or by its
# `default`), and a scheduler of these regions, on the folder DATA, which is emptied.
# Puts into the environment what the command line needs.
fleet_start() {
  local data=$1 sync=$2 api nats region
  shift 2
  rm -rf "$data"
  mkdir -p "$data"
  api=$(fleet_port) nats=$(fleet_port)
  (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$data/api-key")
  {
    printf 'listen: "127.0.0.1:%s"\n' "$nats"
    printf 'jetstream { store_dir: "%s/nats", max_file_store: 1TB' "$data"
    [[ $sync == default ]] || printf ', sync_interval: %s' "$sync"
    printf ' }\n'
  } >"$data/nats.conf"
  cat >"$data/scheduler.toml" <<END
listen = "127.0.0.1:$api"
nats = ["nats://127.0.0.1:$nats"]
contexts = "file://$data/contexts"
default_region = "$1"
bootstrap_key_file = "$data/api-key"
[limits]
snapshots = 4000000000
END
  for region in "$@"; do
    printf '[regions.%s]\nstore = "file://%s"\n' "$region" "$data/$region" >>"$data/scheduler.toml"
  done
  fleet_serve "$data/nats.log" "Server is ready" "$SLIPWAY_NATS_SERVER" --config "$data/nats.conf"
  fleet_serve "$data/scheduler.log" "the API serves" \
    "$SLIPWAY" scheduler --config "$data/scheduler.toml"
  export SLIPWAY_API_URL=http://127.0.0.1:$api/api NATS_URL=nats://127.0.0.1:$nats
  SLIPWAY_API_KEY=$(<"$data/api-key")
  export SLIPWAY_API_KEY
}

# fleet_worker DATA REGION-N SLOTS LINE...: worker N of the region, whose jobs are
# simulated as the LINEs of `[executor.simulated]` say.
fleet_worker() {
  local data=$1 id=$2 slots=$3
  shift 3
  {
    cat <<END
id = "$id"
region = "${id%-*}"
nats = ["$NATS_URL"]
store = "file://$data/${id%-*}"
contexts = "file://$data/contexts"
slots = $slots
drain_grace = "0s"
[executor.simulated]
END
    printf '%s\n' "$@"
  } >"$data/worker-$id.toml"
  fleet_serve "$data/worker-$id.log" "the worker serves" \
    "$SLIPWAY" worker run --config "$data/worker-$id.toml"
}
