# shellcheck shell=bash
# Debian packages: installed by name where a program must be the system's own,
# else unpacked into the project by a private apt that uses the machine's
# sources, keys and cache of nothing else.

# need COMMAND PACKAGE...: installs the packages unless the command is there.
need() {
  local command=$1
  shift
  have "$command" || debian_install "$@"
}

debian_install() {
  have apt-get || give_up "this machine lacks $*, and it has no apt" "install: $*"
  ((EUID == 0)) || give_up "this machine lacks the Debian packages $*" \
    "as root: apt-get install $*"
  say "installing the Debian packages $*"
  mkdir -p "$LOG"
  if ! apt_install "$@" >"$LOG/apt.log" 2>&1; then
    say "refreshing apt's package lists"
    { apt-get --quiet update && apt_install "$@"; } >"$LOG/apt.log" 2>&1 || {
      tail -n 20 "$LOG/apt.log" >&2
      give_up "apt-get could not install $*; its last lines are above" \
        "install them by hand: apt-get install $*"
    }
  fi
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes --no-install-recommends install "$@"
}

# The release of this machine, such as `bookworm`.
debian_release() {
  # shellcheck source=/dev/null
  (. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
}

# The site that this machine's apt takes its own release from.
debian_site() {
  # shellcheck disable=SC2016 # the words in brackets are apt's
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(SITE)' 'Created-By: Packages' 2>/dev/null |
    sed -n "s/^$(debian_release) main //p" | head -n 1
}

# debian_unpack FOLDER PACKAGE/SUITE...: fetches the packages and unpacks them
# into FOLDER without installing anything. Done before: nothing to do.
debian_unpack() {
  local folder=$1 wanted="${*:2}" apt=$DEV/apt deb
  shift
  [[ $(cat "$folder/.complete" 2>/dev/null) != "$wanted" ]] || return 0
  have apt-get || give_up "this machine has no apt" "use Debian 12, which the dev set-up is made for"
  debian_private_apt "$apt" "$@"
  say "fetching the Debian packages $wanted into ${folder#"$PROJECT"/}"
  rm -rf "$folder" "$apt/debs" && mkdir -p "$folder" "$apt/debs"
  (cd "$apt/debs" && APT_CONFIG=$apt/apt.conf apt-get --quiet download "$@") \
    >"$LOG/apt.log" 2>&1 || debian_fetch_failed "$wanted"
  for deb in "$apt"/debs/*.deb; do dpkg-deb --extract "$deb" "$folder"; done
  rm -rf "$apt"
  printf '%s\n' "$wanted" >"$folder/.complete"
}

# Package lists of the suites of PACKAGE/SUITE..., in a folder of their own.
debian_private_apt() {
  local apt=$1 site suite
  shift
  site=$(debian_site)
  [[ -n $site ]] || give_up "apt on this machine names no source for $(debian_release)" \
    "add the release's main archive to apt's sources"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$LOG"
  for suite in $(printf '%s\n' "${@##*/}" | sort -u); do
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
      "$site" "$suite"
  done >"$apt/sources.list"
  cat >"$apt/apt.conf" <<EOF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
EOF
  APT_CONFIG=$apt/apt.conf apt-get --quiet update >"$LOG/apt.log" 2>&1 || debian_fetch_failed "$*"
}

debian_fetch_failed() {
  tail -n 20 "$LOG/apt.log" >&2
  give_up "apt could not fetch $1; its last lines are above" \
    "make the machine's Debian mirror reachable; or run a Docker Engine 25 or newer with the containerd image store"
}
