"""Puts an image of noise into a plain registry, unless it is there.

    noise-image.py HOST:PORT NAME TAG LAYERS BYTES

Each of the LAYERS is a tar with one file of BYTES, in gzip without compression:
noise does not get smaller, and copiers that look at the first bytes take it for
what it says it is. The noise follows from the name, so the image is the same
each time. Prints the digest of its manifest.
"""

import hashlib
import http.client
import json
import random
import sys
import tarfile
import zlib

MIB = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def call(registry, method, path, body=None, headers=None, want=(200, 201, 202)):
    """The answer's headers; `None` where it is 404 and not wanted."""
    connection = http.client.HTTPConnection(registry, timeout=600)
    chunked = body is not None and not isinstance(body, bytes)
    connection.request(method, path, body, headers or {}, encode_chunked=chunked)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status == 404 and method == "HEAD":
        return None
    if answer.status not in want:
        sys.exit(f"{method} {path} at {registry}: {answer.status} {text[:500]!r}")
    return answer.headers


def tar_of_noise(seed, size):
    noise = random.Random(seed)
    entry = tarfile.TarInfo("noise")
    entry.size = size
    yield entry.tobuf()
    for begin in range(0, size, MIB):
        yield noise.randbytes(min(MIB, size - begin))
    yield bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


class Layer:
    """A layer while it is sent: what it comes to is known at the end."""

    def __init__(self, seed, size):
        self.chunks = tar_of_noise(seed, size)
        self.plain, self.packed, self.size = hashlib.sha256(), hashlib.sha256(), 0

    def __iter__(self):
        pack = zlib.compressobj(0, wbits=31)
        for chunk in self.chunks:
            self.plain.update(chunk)
            yield from self.note(pack.compress(chunk))
        yield from self.note(pack.flush())

    def note(self, packed):
        self.packed.update(packed)
        self.size += len(packed)
        # An empty chunk would end the body.
        return [packed] if packed else []


def upload(registry, name, body):
    """Sends a blob of which the digest is known only when it is sent."""
    begun = call(registry, "POST", f"/v2/{name}/blobs/uploads/", b"")
    stream = {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}
    sent = call(registry, "PATCH", path_of(begun["Location"]), body, stream)
    digest = f"sha256:{body.packed.hexdigest()}"
    call(registry, "PUT", f"{path_of(sent['Location'])}&digest={digest}", b"")
    return {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest,
        "size": body.size,
    }


def path_of(location):
    return location if location.startswith("/") else "/" + location.split("/", 3)[3]


def make(registry, name, tag, layers, size):
    descriptors, plain = [], []
    for number in range(1, layers + 1):
        body = Layer(f"{name}:{tag}/{number}", size)
        descriptors.append(upload(registry, name, body))
        plain.append(f"sha256:{body.plain.hexdigest()}")
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/noise"]},
        "rootfs": {"type": "layers", "diff_ids": plain},
    }).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    begun = call(registry, "POST", f"/v2/{name}/blobs/uploads/", b"")
    stream = {"Content-Type": "application/octet-stream"}
    call(registry, "PUT", f"{path_of(begun['Location'])}&digest={digest}", config, stream)
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest,
            "size": len(config),
        },
        "layers": descriptors,
    }).encode()
    call(registry, "PUT", f"/v2/{name}/manifests/{tag}", manifest, {"Content-Type": MANIFEST})


def main():
    registry, name, tag, layers, size = sys.argv[1:]
    ask = (registry, "HEAD", f"/v2/{name}/manifests/{tag}", None, {"Accept": MANIFEST})
    there = call(*ask)
    if there is None:
        make(registry, name, tag, int(layers), int(size))
        there = call(*ask)
    print(there["Docker-Content-Digest"])


main()
