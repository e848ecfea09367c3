# shellcheck shell=bash
# The program itself, for the scripts that use it: built, started as a whole
# stack on a data folder, stopped.

# slipway_build dev|release: sets SLIPWAY to the program.
slipway_build() {
  local target folder=$1
  say "building slipway"
  cargo build --locked --profile "$1" --bin slipway
  target=$(cargo metadata --format-version 1 --no-deps --locked |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  # Cargo's one exception: the profile `dev` is built into `debug`.
  [[ $1 != dev ]] || folder=debug
  SLIPWAY=$target/$folder/slipway
}

# slipway_start DATA LOG: returns when everything serves, with the settings of
# DATA/dev.env in the environment; stops it when the script ends.
slipway_start() {
  local data=$1 log=$2 began=$EPOCHREALTIME
  local ready=$RUN/slipway.ready
  mkdir -p "$data" "$RUN" "$LOG"
  rm -f "$ready"
  "$SLIPWAY" dev --data-dir "$data" --ready-file "$ready" </dev/null >"$log" 2>&1 &
  SLIPWAY_PID=$!
  trap slipway_stop EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  until [[ -e $ready ]]; do
    if ! kill -0 "$SLIPWAY_PID" 2>/dev/null; then
      tail -n 20 "$log" >&2
      say "slipway dev ended before it served; the end of its log is above"
      exit 1
    fi
    sleep 0.05
  done
  # shellcheck source=/dev/null
  . "$data/dev.env"
  say "slipway serves at $DAYTONA_API_URL after $(seconds_since "$began") s; its log is ${log#"$PROJECT"/}"
}

# slipway_fresh DATA LOG: the same on an empty folder, which is ours alone.
slipway_fresh() {
  mkdir -p "$DEV"
  exec {DATA_LOCK}>"$1.lock"
  flock --nonblock "$DATA_LOCK" ||
    give_up "another one works on ${1#"$PROJECT"/} in this checkout" "wait for it to end"
  rm -rf "$1"
  slipway_start "$1" "$2"
}

slipway_stop() {
  trap '' INT TERM HUP
  kill -TERM "$SLIPWAY_PID" 2>/dev/null || return 0
  wait "$SLIPWAY_PID" || say "slipway dev ended with status $?"
}

# seconds_since EPOCHREALTIME: with two decimals.
seconds_since() {
  local began=${1/[.,]/} now=${EPOCHREALTIME/[.,]/}
  local hundredths=$(((now - began) / 10000))
  printf '%d.%02d' $((hundredths / 100)) $((hundredths % 100))
}

# json_field NAME: that field of the JSON object on standard input.
json_field() {
  python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}
