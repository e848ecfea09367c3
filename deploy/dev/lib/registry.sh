# shellcheck shell=bash
# A plain registry on loopback for base images: Debian's docker-registry, run
# from the project, with its data in the project.

readonly REGISTRY_HOME=$DEV/registry
readonly REGISTRY_FIRST_PORT=5071

registry_ensure() {
  local release
  release=$(debian_release)
  debian_unpack "$REGISTRY_HOME" "docker-registry/$release" "busybox-static/$release"
}

# Prints the registry's address, and starts it unless it runs.
registry_start() {
  local port
  if ! server_running registry; then
    port=$(port_from "$REGISTRY_FIRST_PORT")
    say "starting the registry for base images on 127.0.0.1:$port"
    cat >"$REGISTRY_HOME/config.yml" <<EOF
version: 0.1
log: { level: warn, accesslog: { disabled: true } }
storage:
  filesystem: { rootdirectory: $DEV/registry-data }
  delete: { enabled: true }
http: { addr: "127.0.0.1:$port" }
EOF
    server_start registry "$REGISTRY_HOME/usr/bin/docker-registry" serve "$REGISTRY_HOME/config.yml"
    printf '%s\n' "127.0.0.1:$port" >"$RUN/registry.address"
    server_await registry 30 registry_answers
  fi
  cat "$RUN/registry.address"
}

registry_answers() {
  curl --silent --fail --output /dev/null --max-time 5 "http://$(cat "$RUN/registry.address")/v2/"
}

registry_stop() {
  server_running registry || return 0
  say "stopping the registry"
  server_stop registry 10
}
