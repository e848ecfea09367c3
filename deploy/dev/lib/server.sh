# shellcheck shell=bash
# Servers that run beside the scripts: detached, with a log each, known by
# process id and start time (so that a reused id is never taken for ours).

# The kernel's start time of a live process. A zombie, which waits only for
# its parent to look, counts as dead. The name in the second field may hold
# anything, so fields are counted after it.
server_birth() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  [[ $stat != Z* ]] && cut -d ' ' -f 20 <<<"$stat"
}

server_running() {
  local pid birth
  read -r pid birth 2>/dev/null <"$RUN/$1.pid" &&
    [[ -n $birth && $(server_birth "$pid") == "$birth" ]]
}

# server_start NAME COMMAND...
server_start() {
  local name=$1 pid
  shift
  mkdir -p "$RUN" "$LOG"
  setsid -- "$@" </dev/null >"$LOG/$name.log" 2>&1 {DEV_LOCK}>&- &
  pid=$!
  printf '%s %s\n' "$pid" "$(server_birth "$pid")" >"$RUN/$name.pid"
}

# server_await NAME SECONDS CHECK...: until CHECK succeeds; a server that died
# or does not answer in time is shown with the end of its log.
server_await() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@"; do
    if ! server_running "$name" || ((SECONDS >= deadline)); then
      tail -n 20 "$LOG/$name.log" >&2
      give_up "$name does not serve; the end of its log is above" "see ${LOG#"$PROJECT"/}/$name.log"
    fi
    sleep 0.1
  done
}

# server_stop NAME SECONDS: asks it to end, and kills it when it does not.
server_stop() {
  local name=$1 deadline=$((SECONDS + $2)) pid
  if server_running "$name"; then
    read -r pid _ <"$RUN/$name.pid"
    kill -TERM "$pid" 2>/dev/null || true
    while server_running "$name"; do
      ((SECONDS < deadline)) || kill -KILL "$pid" 2>/dev/null || true
      sleep 0.1
    done
  fi
  rm -f "$RUN/$name.pid"
}

# port_free PORT: nothing listens there on loopback.
port_free() {
  ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# port_from FIRST: the first free port from there on: other checkouts may run
# servers of their own.
port_from() {
  local port
  for port in $(seq "$1" $(($1 + 31))); do
    if port_free "$port"; then
      printf '%s\n' "$port"
      return
    fi
  done
  give_up "no port from $1 to $(($1 + 31)) is free" "end what listens there"
}
