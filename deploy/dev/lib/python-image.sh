# shellcheck shell=bash
# A base image with Python, for the tests that build what Daytona's documentation
# builds: Debian from this machine's apt source, with pip, a compiler and a program
# called `python`, in the stack's registry, which those tests use as a mirror of
# Docker Hub.
#
# Two layers: Debian, which takes a minute or two and is made once, and what this
# machine knows about reaching package sources, which is written anew at each start
# and is nowhere but in .dev.

readonly PYTHON_REPOSITORY=library/python PYTHON_TAG=debian
readonly PYTHON_HOME=$DEV/python-image
# Debian's release in the names that Daytona's SDKs ask for.
readonly PYTHON_RELEASE=bookworm
# With what the SDKs install before everything else, which so is there already.
readonly PYTHON_PACKAGES=ca-certificates,python3,python3-pip,python-is-python3,gcc,gfortran,build-essential
readonly PYTHON_LAYER=application/vnd.oci.image.layer.v1.tar+gzip

# python_image_push REGISTRY
python_image_push() {
  local registry=$1 scratch=$PYTHON_HOME/scratch machine
  python_debian_ensure "$registry"
  rm -rf "$scratch" && mkdir -p "$scratch"
  python_machine_root "$scratch/root"
  tar --create --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 \
    --file "$scratch/machine.tar" --directory "$scratch/root" etc
  gzip --no-name --keep "$scratch/machine.tar"
  machine=$(push_blob "$registry" $PYTHON_REPOSITORY "$scratch/machine.tar.gz" "$PYTHON_LAYER")
  python_image_config "$(cat "$PYTHON_HOME/diff-id")" "$(digest_of "$scratch/machine.tar")" \
    >"$scratch/config.json"
  push_image "$registry" $PYTHON_REPOSITORY $PYTHON_TAG "$scratch/config.json" \
    "$(cat "$PYTHON_HOME/layer"),$machine"
  rm -rf "$scratch"
}

# Debian's layer in the registry, its descriptor and diff id in .dev.
python_debian_ensure() {
  local registry=$1 wanted="$PYTHON_RELEASE $PYTHON_PACKAGES" digest
  digest=$(sed -n 's/.*"digest":"\([^"]*\)".*/\1/p' "$PYTHON_HOME/layer" 2>/dev/null || true)
  [[ $(cat "$PYTHON_HOME/.complete" 2>/dev/null) != "$wanted" ]] ||
    ! curl --silent --fail --head --output /dev/null \
      "http://$registry/v2/$PYTHON_REPOSITORY/blobs/$digest" || return 0
  need mmdebstrap mmdebstrap
  say "making a base image with Python from Debian's packages (a minute or two, once)"
  rm -rf "$PYTHON_HOME" && mkdir -p "$PYTHON_HOME" "$LOG"
  python_debian_make "$PYTHON_HOME/debian.tar"
  digest_of "$PYTHON_HOME/debian.tar" >"$PYTHON_HOME/diff-id"
  gzip --no-name --fast "$PYTHON_HOME/debian.tar"
  push_blob "$registry" $PYTHON_REPOSITORY "$PYTHON_HOME/debian.tar.gz" "$PYTHON_LAYER" \
    >"$PYTHON_HOME/layer"
  rm "$PYTHON_HOME/debian.tar.gz"
  printf '%s\n' "$wanted" >"$PYTHON_HOME/.complete"
}

# Debian says of its Python that pip may not change it. Here pip may, as in the image
# that this one stands for.
python_debian_make() {
  local site
  site=$(debian_site)
  [[ -n $site ]] || give_up "apt on this machine names no source for $(debian_release)" \
    "add the release's main archive to apt's sources"
  # shellcheck disable=SC2016 # the folder of the new system, as mmdebstrap calls it
  if ! mmdebstrap --quiet --variant=minbase --architectures=amd64 --format=tar \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --include="$PYTHON_PACKAGES" \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
    "$PYTHON_RELEASE" "$1" "$site" >"$LOG/python-image.log" 2>&1; then
    tail -n 20 "$LOG/python-image.log" >&2
    give_up "the base image with Python could not be made; the last lines are above" \
      "make the machine's Debian mirror reachable"
  fi
}

# How this machine reaches package sources: its authorities, and what it tells pip
# and apt about indexes, proxies and dates.
python_machine_root() {
  local root=$1
  mkdir -p "$root"/etc/{apt/apt.conf.d,ssl/certs}
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  {
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n'
    python_pip_settings
  } >"$root/etc/pip.conf"
  {
    printf 'Acquire::Retries "5";\n'
    apt-config dump Acquire | grep -E '^Acquire::(Check-[A-Za-z-]+|https?::Proxy) ' || true
  } >"$root/etc/apt/apt.conf.d/90machine"
  find "$root" -type d -exec chmod 755 {} + -o -exec chmod 644 {} +
}

# Lines of a pip.conf. What the environment says comes first in pip's list, and counts.
python_pip_settings() {
  "$S3_HOME/bin/pip" config list |
    sed -nE "s/^.*\.(index-url|extra-index-url|trusted-host|proxy)='(.*)'$/\1 = \2/p" |
    awk '!seen[$1]++' | sed 's/\\n/\n  /g'
}

# python_image_config DIFF-ID...
python_image_config() {
  cat <<EOF
{"architecture":"amd64","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["python3"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["$1","$2"]}}
EOF
}
