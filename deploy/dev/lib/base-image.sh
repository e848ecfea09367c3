# shellcheck shell=bash
# The base image of the demo and the tests: busybox from its Debian package,
# with an entrypoint and a command for other images to inherit.

readonly BASE_REPOSITORY=slipway/busybox

# base_image_push REGISTRY: prints the image's reference; pushes it unless it
# is there. The same package gives the same digest, everywhere.
base_image_push() {
  local registry=$1 version
  version=$("$REGISTRY_HOME/bin/busybox" | sed -n '1s/^BusyBox v\([0-9]*\.[0-9]*\).*/\1/p')
  if ! curl --silent --fail --head --output /dev/null \
    --header 'Accept: application/vnd.oci.image.manifest.v1+json' \
    "http://$registry/v2/$BASE_REPOSITORY/manifests/$version"; then
    say "making the base image $registry/$BASE_REPOSITORY:$version from Debian's busybox"
    base_image_make "$registry" "$version"
  fi
  printf '%s\n' "$registry/$BASE_REPOSITORY:$version"
}

base_image_make() {
  local registry=$1 version=$2 scratch=$DEV/base-image layer config
  rm -rf "$scratch" && mkdir -p "$scratch"
  base_image_root "$scratch/root"
  tar --create --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 \
    --file "$scratch/layer.tar" --directory "$scratch/root" .
  gzip --no-name --keep "$scratch/layer.tar"
  base_image_config "$(digest_of "$scratch/layer.tar")" >"$scratch/config.json"
  layer=$(push_blob "$registry" $BASE_REPOSITORY "$scratch/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)
  push_image "$registry" $BASE_REPOSITORY "$version" "$scratch/config.json" "$layer"
  rm -rf "$scratch"
}

base_image_root() {
  local root=$1 applet
  mkdir -p "$root"/{bin,etc,root,tmp,usr/bin}
  chmod 755 "$root" "$root"/{bin,etc,usr,usr/bin} && chmod 700 "$root/root" && chmod 1777 "$root/tmp"
  install -m 755 "$REGISTRY_HOME/bin/busybox" "$root/bin/busybox"
  for applet in $("$REGISTRY_HOME/bin/busybox" --list); do
    [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
  done
  ln -s ../../bin/env "$root/usr/bin/env"
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
  chmod 644 "$root"/etc/*
}

base_image_config() {
  cat <<EOF
{"architecture":"amd64","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=/bin:/usr/bin"],"Entrypoint":["/bin/sh","-c"],"Cmd":["echo the base image of the dev stack"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["$1"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"Debian package busybox-static"}]}
EOF
}

digest_of() { printf 'sha256:%s' "$(sha256sum <"$1" | cut -d ' ' -f 1)"; }

# push_blob REGISTRY REPOSITORY FILE MEDIA-TYPE: prints the blob's descriptor.
push_blob() {
  local digest upload
  digest=$(digest_of "$3")
  upload=$(curl --silent --show-error --fail --request POST --output /dev/null --dump-header - \
    "http://$1/v2/$2/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  registry_put application/octet-stream "$3" "$upload&digest=$digest"
  printf '{"mediaType":"%s","digest":"%s","size":%s}' "$4" "$digest" "$(stat --format %s "$3")"
}

# push_image REGISTRY REPOSITORY TAG CONFIG LAYERS: the config from its file, the
# layers as descriptors with commas between them. The manifest lies beside CONFIG.
push_image() {
  local config type=application/vnd.oci.image.manifest.v1+json manifest=${4%/*}/manifest.json
  config=$(push_blob "$1" "$2" "$4" application/vnd.oci.image.config.v1+json)
  printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' \
    "$type" "$config" "$5" >"$manifest"
  registry_put "$type" "$manifest" "http://$1/v2/$2/manifests/$3"
}

# registry_put MEDIA-TYPE FILE URL
registry_put() {
  curl --silent --show-error --fail --output /dev/null \
    --header "Content-Type: $1" --upload-file "$2" "$3"
}
