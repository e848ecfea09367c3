# shellcheck shell=bash
# BuildKit: one that runs on this machine and serves, else an engine of our own
# from Debian 13's packages, which run on Debian 12 too (its own engine is of
# 2020 and cannot push OCI images).

readonly ENGINE=$DEV/engine
# Where it keeps what it has; an engine that is not the stack's has another folder.
readonly ENGINE_DATA=${ENGINE_DATA:-$DEV/engine-data}
readonly ENGINE_SOCKET=$ENGINE_DATA/docker.sock
# The oldest Docker Engine whose containerd image store we rely on.
readonly ENGINE_FLOOR=25.0

# Prints the endpoint to use if one is there without our doing.
engine_found() {
  local socket own=docker://$ENGINE_SOCKET
  # Our own endpoint in a shell's environment says nothing: it may be stopped.
  if [[ ${SLIPWAY_BUILDKIT:-$own} != "$own" ]]; then
    printf '%s\n' "$SLIPWAY_BUILDKIT"
    return
  fi
  if server_running containerd && server_running dockerd && engine_answers; then
    printf '%s\n' "$own"
    return
  fi
  for socket in "${DOCKER_HOST:-}" /var/run/docker.sock; do
    socket=${socket#unix://}
    if [[ $socket != "$ENGINE_SOCKET" && -S $socket ]] && engine_fits "$socket"; then
      printf 'docker://%s\n' "$socket"
      return
    fi
  done
  if [[ ${BUILDKIT_HOST:-} =~ ^(unix|tcp):// ]]; then
    printf '%s\n' "$BUILDKIT_HOST"
    return
  fi
  [[ -w /run/buildkit/buildkitd.sock ]] && printf 'unix:///run/buildkit/buildkitd.sock\n'
}

# Is this a Docker Engine that builds for us? New enough, with the containerd
# image store, and in this machine's own network: BuildKit pushes to loopback.
engine_fits() {
  local info version
  info=$(curl --silent --fail --max-time 5 --unix-socket "$1" http://engine/info 2>/dev/null) || {
    say "the Docker Engine at $1 does not answer this user: passed over"
    return 1
  }
  version=$(sed -n 's/.*"ServerVersion":"\([^"]*\)".*/\1/p' <<<"$info")
  if ! version_at_least "$version" "$ENGINE_FLOOR"; then
    say "the Docker Engine at $1 is $version, older than $ENGINE_FLOOR: passed over"
  elif [[ $info != *io.containerd.snapshotter* ]]; then
    say "the Docker Engine at $1 lacks the containerd image store: passed over"
  elif [[ $info == *name=rootless* || $info == *"Docker Desktop"* ]]; then
    say "the Docker Engine at $1 has a network of its own (rootless or Desktop): passed over"
  else
    return 0
  fi
  return 1
}

# Brings what our own engine needs, if there is to be one.
engine_ensure() {
  local endpoint
  if endpoint=$(engine_found); then
    say "BuildKit: using $endpoint"
    return
  fi
  engine_unpack
  have docker || ln -sf "$ENGINE/usr/bin/docker" "$BIN/docker"
  say "BuildKit: own engine, Docker $(engine_version) in .dev/engine"
}

# Brings the programs of our own engine.
engine_unpack() {
  engine_possible
  need iptables iptables
  need ip iproute2
  debian_unpack "$ENGINE" "runc/$(debian_release)" \
    docker.io/trixie docker-cli/trixie containerd/trixie
}

engine_possible() {
  local remedy="run a Docker Engine $ENGINE_FLOOR or newer with the containerd image store, or point SLIPWAY_BUILDKIT at a buildkitd"
  [[ $(uname -sm) == "Linux x86_64" ]] ||
    give_up "our own engine is for Linux on x86_64, this is $(uname -sm)" "$remedy"
  [[ $(debian_release) =~ ^(bookworm|trixie)$ ]] ||
    give_up "no BuildKit runs here, and our own engine is for Debian 12 and 13" "$remedy"
  ((EUID == 0)) || give_up "no BuildKit runs here, and our own engine needs root" \
    "run as root; or $remedy"
  # The kernel's limit for the path of a socket is 107 bytes.
  if ((${#ENGINE_SOCKET} > 90)) || [[ ! $PROJECT =~ ^[A-Za-z0-9/._+@-]+$ ]]; then
    give_up "the engine's sockets cannot lie in $PROJECT" \
      "move the project to a shorter path of plain letters"
  fi
}

engine_version() {
  "$ENGINE/usr/sbin/dockerd" --version | sed 's/^Docker version \([^,+]*\).*/\1/'
}

# Prints the endpoint; starts our own engine unless there is one to use.
engine_start() {
  engine_found && return
  say "starting containerd and dockerd; their logs are in .dev/log"
  engine_halt
  engine_prepare
  local -x PATH="$ENGINE/usr/sbin:$ENGINE/usr/bin:$PATH"
  server_start containerd containerd --config "$ENGINE_DATA/containerd.toml"
  server_await containerd 30 test -S "$ENGINE_DATA/containerd.sock"
  # Steps print what they print: the log limits of BuildKit are off.
  server_start dockerd env BUILDKIT_STEP_LOG_MAX_SPEED=-1 BUILDKIT_STEP_LOG_MAX_SIZE=-1 \
    dockerd --config-file "$ENGINE_DATA/daemon.json"
  server_await dockerd 60 engine_answers
  printf 'docker://%s\n' "$ENGINE_SOCKET"
}

engine_answers() {
  curl --silent --fail --output /dev/null --max-time 5 \
    --unix-socket "$ENGINE_SOCKET" http://engine/_ping 2>/dev/null
}

# Makes the folder ready for an engine.
engine_prepare() {
  mkdir -p "$ENGINE_DATA"
  engine_clear_leftovers
  engine_bridge_up
  engine_configure
}

engine_halt() {
  server_stop dockerd 20
  server_stop containerd 10
  engine_clear_leftovers
}

# What a killed engine leaves behind and a new one would stumble over.
engine_clear_leftovers() {
  rm -f "$ENGINE_DATA"/{docker,containerd}.{sock,pid} "$ENGINE_DATA"/containerd.sock.ttrpc
  # Networks of an engine that was killed: their bridges may be another one's by now.
  rm -rf "$ENGINE_DATA/data/network"
  engine_bridge_down
}

# A bridge of our own: two engines that share one take it from each other.
engine_bridge_up() {
  local n
  for n in {0..31}; do
    if ! ip link show "slipway$n" >/dev/null 2>&1 &&
      [[ -z $(ip -4 route show "172.29.$n.0/24") ]]; then
      ip link add "slipway$n" type bridge
      printf 'slipway%s\n' "$n" >"$ENGINE_DATA/bridge"
      ip address add "172.29.$n.1/24" dev "slipway$n"
      ip link set "slipway$n" up
      return
    fi
  done
  give_up "the bridges slipway0 to slipway31 are all taken" "remove those of stacks that no longer run"
}

# Removes the bridge and the firewall rules that the engine made for it.
engine_bridge_down() {
  local bridge table rule
  bridge=$(cat "$ENGINE_DATA/bridge" 2>/dev/null) || return 0
  for table in nat filter raw; do
    iptables --wait --table "$table" --list-rules 2>/dev/null |
      sed -nE "/^-A .* $bridge( |\$)/ s/^-A/-D/p" |
      while read -r -a rule; do
        iptables --wait --table "$table" "${rule[@]}" || true
      done
  done
  ip link delete "$bridge" 2>/dev/null || true
  rm -f "$ENGINE_DATA/bridge"
}

engine_configure() {
  cat >"$ENGINE_DATA/containerd.toml" <<EOF
version = 2
root = "$ENGINE_DATA/containerd/root"
state = "$ENGINE_DATA/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$ENGINE_DATA/containerd.sock"
EOF
  cat >"$ENGINE_DATA/daemon.json" <<EOF
{
  "features": { "containerd-snapshotter": true },
  "containerd": "$ENGINE_DATA/containerd.sock",
  "data-root": "$ENGINE_DATA/data",
  "exec-root": "$ENGINE_DATA/exec",
  "pidfile": "$ENGINE_DATA/docker.pid",
  "hosts": ["unix://$ENGINE_SOCKET"],
  "bridge": "$(cat "$ENGINE_DATA/bridge")",
  "builder": { "gc": { "enabled": true, "defaultKeepStorage": "10GB" } },
  "shutdown-timeout": 5
}
EOF
}

engine_stop() {
  server_running dockerd || server_running containerd || [[ -e $ENGINE_DATA/bridge ]] || return 0
  say "stopping the engine"
  engine_halt
}

# A killed engine leaves mounts on its data, which rm could not remove.
engine_unmount() {
  local mount
  while read -r mount; do
    umount "$mount"
  done < <(cut -d ' ' -f 2 /proc/mounts | grep -F -- "$ENGINE_DATA/" | sort -r)
}
