"""What users do with Daytona's SDK for Python, blocking and asynchronous.

    scenarios.py sync|async SCENARIO

Reads what it needs to know as JSON from standard input and prints what it saw.
The scenarios are written once: the blocking client never really awaits.
"""

import inspect
import json
import os
import sys
import tempfile
import urllib.request

import daytona
from daytona import CreateSnapshotParams, DaytonaConfig, DaytonaError, Image, Resources
from daytona_api_client.exceptions import ApiException
from daytona_api_client_async.exceptions import ApiException as AsyncApiException

FIELDS = ["name", "state", "cpu", "gpu", "mem", "disk", "entrypoint", "region_ids", "general"]


async def done(value):
    return await value if inspect.isawaitable(value) else value


def shown(snapshot):
    """What of a snapshot does not differ from run to run."""
    seen = {field: getattr(snapshot, field) for field in FIELDS}
    seen["state"] = str(getattr(snapshot.state, "value", snapshot.state))
    seen["has_size"] = snapshot.size is not None
    return seen


async def failure(value):
    """The error that an awaitable or a call ends in."""
    try:
        await done(value() if callable(value) else value)
    except DaytonaError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except (ApiException, AsyncApiException) as error:
        # Some calls give the errors of the layer below.
        return {"error": type(error).__name__, "message": json.loads(error.body)["message"]}
    return {"error": None}


async def build_with_logs(client, params):
    logs = []
    snapshot = await done(client.snapshot.create(params, on_logs=logs.append))
    return snapshot, logs


async def images(client, told):
    """From an image, with everything that can be said about it."""
    params = CreateSnapshotParams(
        name="team/from-image:1.0",
        image=told["image"],
        resources=Resources(cpu=2, memory=3, disk=4),
        entrypoint=["sleep", "60"],
    )
    snapshot, logs = await build_with_logs(client, params)
    seen = {"created": shown(snapshot), "heard": len(logs) > 0}
    got = await done(client.snapshot.get("team/from-image:1.0"))
    seen["same"] = got.id == snapshot.id
    by_id = await done(client.snapshot.get(snapshot.id))
    seen["by_id"] = by_id.name
    await done(client.snapshot.delete(got))
    return seen


async def declared(client, told):
    """A declarative image with local files and folders.

    A client asks every second how a build goes and reads the log only of one that it
    has seen building, so what is built here takes some seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.makedirs("src/deep")
        for name, text in {"one.txt": "one", "src/two.txt": "two", "src/deep/three.sh": "three"}.items():
            with open(name, "w") as file:
                file.write(text)
        os.chmod("src/deep/three.sh", 0o755)
        # Large enough for several parts.
        with open("large.bin", "w") as file:
            file.write((told["marker"] + "\n") * (12 * 2**20 // (len(told["marker"]) + 1)))
        image = (
            Image.base(told["image"])
            .add_local_file("one.txt", "/data/one.txt")
            .add_local_dir("src", "/data/src")
            .add_local_file("large.bin", "/data/large.bin")
            .env({"GREETING": "hello"})
            .workdir("/data")
            .run_commands(
                f"echo marker {told['marker']}",
                "cat one.txt src/two.txt src/deep/three.sh && echo && ls -l src/deep/three.sh | cut -c 1-10",
                'for i in 1 2 3; do echo "$GREETING $i"; sleep 1; done',
                "wc -c <large.bin",
            )
        )
        params = CreateSnapshotParams(name="declared", image=image, entrypoint=["sleep", "infinity"])
        snapshot, logs = await build_with_logs(client, params)
        # The same folder again is not uploaded again.
        again = CreateSnapshotParams(name="declared-again", image=image)
        second = await done(client.snapshot.create(again))
    text = "\n".join(logs)
    words = ["onetwothree", "-rwxr-xr-x", "hello 1", "hello 2", "hello 3", "12582886"]
    order = [text.find(word) for word in words]
    return {
        "created": shown(snapshot),
        "again": second.state.value,
        "first": logs[0].split(" (")[0],
        "last": logs[-1],
        "in_order": order == sorted(order) and min(order) >= 0,
        "contexts": len(snapshot.build_info.context_hashes),
        "text": text if min(order) < 0 else "complete",
    }


async def dockerfile(client, told):
    """From a Dockerfile with files beside it; ADD comes by way of COPY's contexts."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "app.txt"), "w") as file:
            file.write("from the context")
        os.makedirs(os.path.join(folder, "conf.d"))
        with open(os.path.join(folder, "conf.d", "a.conf"), "w") as file:
            file.write("a = 1")
        path = os.path.join(folder, "Dockerfile")
        with open(path, "w") as file:
            file.write(
                f"FROM {told['image']}\nENV MARKER={told['marker']}\n"
                "COPY app.txt /app.txt\nCOPY conf.d /etc/conf.d\nADD app.txt /added.txt\n"
                "RUN cat /app.txt && echo && cat /etc/conf.d/a.conf /added.txt && echo && sleep 3\n"
                'ENTRYPOINT ["cat", "/app.txt"]\n'
            )
        params = CreateSnapshotParams(name="dockerfile", image=Image.from_dockerfile(path))
        snapshot, logs = await build_with_logs(client, params)
    text = "\n".join(logs)
    return {
        "created": shown(snapshot),
        "seen": [word in text for word in ("from the context", "a = 1from the context")],
    }


async def pages(client, told):
    """Lists with pages; what is deleted is gone."""
    created = []
    for n in range(3):
        params = CreateSnapshotParams(name=f"page-{n}", image=told["image"])
        created.append(await done(client.snapshot.create(params)))
    first = await done(client.snapshot.list(page=1, limit=2))
    second = await done(client.snapshot.list(page=2, limit=2))
    names = sorted(item.name for item in first.items + second.items)
    seen = {"names": names, "totals": [first.total, first.total_pages, second.page]}
    await done(client.snapshot.delete("page-0"))
    for snapshot in created[1:]:
        await done(client.snapshot.delete(snapshot))
    return seen


async def activate(client, told):
    """A snapshot that was taken out of use comes back."""
    params = CreateSnapshotParams(name="resting", image=told["image"])
    snapshot = await done(client.snapshot.create(params))
    # The client has no call for this; the web console has.
    url = f"{told['api']}/snapshots/{snapshot.id}/deactivate"
    headers = {"Authorization": f"Bearer {told['key']}"}
    urllib.request.urlopen(urllib.request.Request(url, method="POST", headers=headers)).close()
    resting = await done(client.snapshot.get("resting"))
    seen = {"resting": shown(resting)}
    seen["activated"] = shown(await done(client.snapshot.activate(resting)))
    seen["again"] = await failure(lambda: client.snapshot.activate(resting))
    await done(client.snapshot.delete("resting"))
    return seen


async def gpu(client, told):
    """GPU snapshots only where GPUs are."""
    at = lambda region: CreateSnapshotParams(  # noqa: E731
        name="gpu", image=told["image"], resources=Resources(gpu=1), region_id=region
    )
    elsewhere = await failure(lambda: client.snapshot.create(at("us")))
    snapshot = await done(client.snapshot.create(at("us-east-1")))
    return {"elsewhere": elsewhere, "created": shown(snapshot)}


async def errors(client, told):
    """Every error that the client can reach."""
    create = lambda name, image, **more: lambda: client.snapshot.create(  # noqa: E731
        CreateSnapshotParams(name=name, image=image, **more)
    )
    image, seen = told["image"], {}
    seen["bad_name"] = await failure(create("no spaces", image))
    seen["latest"] = await failure(create("latest", image.rsplit(":", 1)[0] + ":latest"))
    seen["no_tag"] = await failure(create("no-tag", "busybox"))
    seen["region"] = await failure(create("mars", image, region_id="mars"))
    seen["too_large"] = await failure(create("large", image, resources=Resources(cpu=64)))
    seen["no_such_image"] = await failure(create("gone", image.rsplit("/", 1)[0] + "/nothing:1"))
    failing = Image.base(image).run_commands(f"echo {told['marker']}", "echo before; exit 3")
    seen["failed_build"] = await failure(create("failing", failing))
    await done(client.snapshot.create(CreateSnapshotParams(name="taken", image=image)))
    seen["taken"] = await failure(create("taken", image))
    seen["unknown"] = await failure(lambda: client.snapshot.get("unknown"))
    seen["delete_unknown"] = await failure(lambda: client.snapshot.delete("unknown"))
    stranger = type(client)(DaytonaConfig(api_key="dtn_" + "0" * 64, api_url=told["api"]))
    seen["wrong_key"] = await failure(lambda: stranger.snapshot.list())
    seen["wrong_key_upload"] = await failure(
        lambda: stranger.snapshot.create(
            CreateSnapshotParams(name="x", image=Image.base(image).add_local_file(__file__, "/x"))
        )
    )
    if hasattr(stranger, "close"):
        await done(stranger.close())
    return seen


async def quota(client, told):
    """One snapshot more than the organization may have."""
    params = CreateSnapshotParams(name="first", image=told["image"])
    await done(client.snapshot.create(params))
    more = CreateSnapshotParams(name="second", image=told["image"])
    seen = {"refused": await failure(lambda: client.snapshot.create(more))}
    await done(client.snapshot.delete("first"))
    return seen


async def debian_slim_name(client, told):
    """What `debian_slim` begins with: the last release of Python that this SDK knows."""
    return Image.debian_slim("3.12").dockerfile().split()[1]


async def debian_slim(client, told):
    """The image of the documentation, through a mirror, with a package from PyPI."""
    image = Image.debian_slim("3.12").pip_install("six").run_commands(
        f"echo {told['marker']}",
        "python -c 'import six; print(\"six is\", six.__name__)'",
        "sleep 3",
    )
    snapshot, logs = await build_with_logs(client, CreateSnapshotParams(name="slim", image=image))
    return {"created": shown(snapshot), "six": "six is six" in "\n".join(logs)}


async def run(kind, scenario, told):
    config = DaytonaConfig(api_key=told["key"], api_url=told["api"])
    client = (daytona.AsyncDaytona if kind == "async" else daytona.Daytona)(config)
    try:
        return await scenario(client, told)
    finally:
        if hasattr(client, "close"):
            await done(client.close())


def main():
    kind, name = sys.argv[1:]
    told = json.load(sys.stdin)
    running = run(kind, globals()[name], told)
    if kind == "async":
        import asyncio

        seen = asyncio.run(running)
    else:
        # Nothing in it waits, so the first step is the last.
        try:
            running.send(None)
            raise SystemExit("the blocking client has awaited something")
        except StopIteration as end:
            seen = end.value
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
