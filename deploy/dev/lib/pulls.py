"""Measures and reports for the pull part of `make bench`.

    pulls.py job NAME DIGEST KNOWN   the figures of watch.py on standard input, with
                                     what the API says of the pull that made the
                                     snapshot NAME; it has to have DIGEST, and of its
                                     layers KNOWN must not have been fetched
    pulls.py report RESULTS          tables of the lines of that file
"""

import datetime
import json
import os
import statistics
import sys
import urllib.request

MIB = 1 << 20


def api(path):
    request = urllib.request.Request(
        os.environ["SLIPWAY_API_URL"] + path,
        headers={"Authorization": f"Bearer {os.environ['SLIPWAY_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def moment(text):
    # Python reads six decimals of a second, the API writes up to nine.
    return datetime.datetime.fromisoformat(text.rstrip("Z").ljust(26, "0")[:26])


def job(name, digest, known):
    figures = json.load(sys.stdin)
    jobs = [each for each in api("/v1/jobs?limit=100")["items"] if each["snapshotName"] == name]
    if len(jobs) != 1 or jobs[0]["state"] != "succeeded" or len(jobs[0]["attempts"]) != 1:
        sys.exit(f"{name}: not one pull that went well at once: {jobs}")
    snapshot = api(f"/snapshots/{name}")
    if not snapshot["ref"].endswith(digest):
        sys.exit(f"{name}: {snapshot['ref']} is not the source's {digest}")
    if jobs[0]["cachedSteps"] != int(known):
        sys.exit(f"{name}: {jobs[0]['cachedSteps']} layers were there before, not {known}")
    attempt = jobs[0]["attempts"][0]
    work = moment(attempt["endedAt"]) - moment(attempt["startedAt"])
    active = moment(snapshot["updatedAt"]) - moment(snapshot["createdAt"])
    figures["work_ms"] = round(work.total_seconds() * 1000, 1)
    figures["active_ms"] = round(active.total_seconds() * 1000, 1)
    print(json.dumps(figures))


def spread(values, digits):
    least, most = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def row(title, pairs):
    def of(side, what):
        return [pair[side][what] for pair in pairs]

    command, work, theirs = of("slipway", "ms"), of("slipway", "work_ms"), of("skopeo", "ms")
    print(f"{title}, {len(pairs)} pairs")
    lines = [
        ("slipway, the command, ms", spread(command, 0)),
        ("slipway, submitted to active, ms", spread(of("slipway", "active_ms"), 0)),
        ("slipway, the worker's attempt, ms", spread(work, 0)),
        ("skopeo copy, ms", spread(theirs, 0)),
        ("command/skopeo", spread([a / b for a, b in zip(command, theirs)], 2)),
        ("attempt/skopeo", spread([a / b for a, b in zip(work, theirs)], 3)),
        ("slipway, peak of the worker, MiB", spread(of("slipway", "peak_mib"), 0)),
        ("skopeo, peak, MiB", spread(of("skopeo", "peak_mib"), 0)),
    ]
    for name, text in lines:
        print(f"  {name:<36}{text}")


def report(results):
    records = [json.loads(line) for line in open(results)]
    for kind, title in (("cold", "cold"), ("present", "all blobs present")):
        pairs = [each for each in records if each["kind"] == kind]
        if pairs:
            row(title, pairs)
    loads = [each["load"] for each in records]
    print(f"load average (1 min) during it: {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} CPUs")
    for each in records:
        if each["kind"] != "large":
            continue
        peak = each["slipway"]["peak_mib"]
        print(f"{each['layers']} layers of {each['layer_bytes']} bytes: {each['slipway']['ms']:.0f} ms, "
              f"peak of the worker {peak} MiB")
        if peak * MIB > 150e6:
            sys.exit("the worker needs more than the 150 MB that it may")


{"job": job, "report": report}[sys.argv[1]](*sys.argv[2:])
