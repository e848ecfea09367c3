"""Everything that uploaders of Daytona do with S3, by Amazon's own client.

Reads one JSON object (where the door is, and keys) from standard input, does
the checks named by the first argument, and prints what it saw as JSON.
"""

import hashlib
import io
import json
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError


def client(told, **changes):
    settings = {**told, **changes}
    return boto3.client(
        "s3",
        endpoint_url=settings["url"],
        region_name="us-east-1",
        aws_access_key_id=settings["accessKey"],
        aws_secret_access_key=settings["secret"],
        aws_session_token=settings["sessionToken"],
        verify=settings.get("authority"),
        config=Config(
            s3={"addressing_style": "path", "payload_signing_enabled": settings.get("signed", True)},
            request_checksum_calculation=settings.get("checksums", "when_supported"),
            retries={"max_attempts": 1},
        ),
    )


def code(call, *args, **kwargs):
    """What a call is answered: its error code, or its status."""
    try:
        return call(*args, **kwargs)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["Error"]["Code"]


def whole(told):
    s3, bucket, org = client(told), told["bucket"], told["organization"]
    seen = {"head_bucket": code(s3.head_bucket, Bucket=bucket)}
    seen["location"] = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"]
    key = f"{org}/{'a' * 32}/context.tar"
    seen["head_before"] = code(s3.head_object, Bucket=bucket, Key=key)
    seen["put"] = code(s3.put_object, Bucket=bucket, Key=key, Body=b"hello context")
    head = s3.head_object(Bucket=bucket, Key=key)
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{org}/{'a' * 32}/", MaxKeys=1)
    seen["size"] = head["ContentLength"]
    seen["same_etag"] = listed["Contents"][0]["ETag"] == head["ETag"]
    seen["get"] = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    seen["range"] = s3.get_object(Bucket=bucket, Key=key, Range="bytes=6-")["Body"].read().decode()
    # As the command line writes folders.
    marker = f"{org}/{'b' * 64}/"
    seen["marker"] = code(s3.put_object, Bucket=bucket, Key=marker, Body=b"")
    seen["full_marker"] = code(s3.put_object, Bucket=bucket, Key=marker, Body=b"x")
    seen["forms"] = {}
    for name, changes in {
        "unsigned": {"signed": False},
        "signed": {"signed": True},
        "no_checksum": {"checksums": "when_required"},
    }.items():
        other = client(told, **changes)
        key = f"{org}/{hashlib.md5(name.encode()).hexdigest()}/context.tar"
        body = io.BytesIO(name.encode() * 10_000)
        seen["forms"][name] = code(other.put_object, Bucket=bucket, Key=key, Body=body)
    for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256"]:
        if algorithm == "CRC32C" and not has_crc32c():
            continue
        key = f"{org}/{hashlib.md5(algorithm.encode()).hexdigest()}/context.tar"
        put = s3.put_object(Bucket=bucket, Key=key, Body=b"sum", ChecksumAlgorithm=algorithm)
        seen["forms"][algorithm] = f"Checksum{algorithm}" in put
    return seen


def has_crc32c():
    try:
        import awscrt  # noqa: F401
    except ImportError:
        return False
    return True


def parts(told):
    s3, bucket, org = client(told), told["bucket"], told["organization"]
    key = f"{org}/{'c' * 32}/context.tar"
    body = bytes(range(256)) * 4096 * 12
    config = TransferConfig(multipart_threshold=1, multipart_chunksize=5 << 20, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), bucket, key, Config=config)
    got = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    seen = {"same": got == body, "sha256": hashlib.sha256(got).hexdigest()}
    # What is given up leaves nothing and is gone.
    start = s3.create_multipart_upload(Bucket=bucket, Key=key.replace("c" * 32, "d" * 32))
    made = {"Bucket": bucket, "Key": start["Key"], "UploadId": start["UploadId"]}
    part = s3.upload_part(**made, PartNumber=1, Body=b"part")
    wrong = {"Parts": [{"PartNumber": 1, "ETag": '"' + "0" * 64 + '"'}]}
    seen["wrong_etag"] = code(s3.complete_multipart_upload, **made, MultipartUpload=wrong)
    both = {"Parts": [{"PartNumber": n, "ETag": part["ETag"]} for n in (1, 2)]}
    seen["missing_part"] = code(s3.complete_multipart_upload, **made, MultipartUpload=both)
    seen["too_large"] = code(s3.upload_part, **made, PartNumber=2, Body=b"x" * (told["limit"] - 3))
    other = {**made, "Key": key}
    seen["other_object"] = code(s3.upload_part, **other, PartNumber=1, Body=b"part")
    seen["abort"] = code(s3.abort_multipart_upload, **made)
    seen["nothing_left"] = code(s3.head_object, Bucket=bucket, Key=start["Key"])
    return seen


def refusals(told):
    s3, bucket, org = client(told), told["bucket"], told["organization"]
    own, foreign = f"{org}/{'e' * 32}/context.tar", f"{told['foreign']}/{'e' * 32}/context.tar"
    put = {"Bucket": bucket, "Key": own, "Body": b"x"}
    seen = {
        "foreign_put": code(s3.put_object, Bucket=bucket, Key=foreign, Body=b"x"),
        "foreign_get": code(s3.get_object, Bucket=bucket, Key=foreign),
        "foreign_list": code(s3.list_objects_v2, Bucket=bucket, Prefix=told["foreign"]),
        "list_all": code(s3.list_objects_v2, Bucket=bucket),
        "list_part_of_name": code(s3.list_objects_v2, Bucket=bucket, Prefix=org[:8]),
        "other_name": code(s3.put_object, Bucket=bucket, Key=f"{org}/x.tar", Body=b"x"),
        "other_bucket": code(s3.put_object, Bucket="other-bucket", Key=own, Body=b"x"),
        "buckets": code(s3.list_buckets),
        "delete": code(s3.delete_object, Bucket=bucket, Key=own),
        "wrong_secret": code(client(told, secret="x" * 43).put_object, **put),
        "wrong_token": code(client(told, sessionToken="x").put_object, **put),
        "no_token": code(client(told, sessionToken=None).put_object, **put),
        "unknown_key": code(client(told, accessKey="AKIAIOSFODNN7EXAMPLE").put_object, **put),
        "expired": code(client(told, **told["expired"]).put_object, **put),
        "wrong_checksum": code(s3.put_object, **put, ChecksumCRC32="AAAAAA=="),
        "wrong_md5": code(s3.put_object, **put, ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg=="),
        "too_large": code(s3.put_object, Bucket=bucket, Key=own, Body=b"x" * (told["limit"] + 1)),
    }
    seen["nothing_stored"] = code(s3.head_object, Bucket=bucket, Key=own)
    return seen


def pages(told):
    s3, bucket, org = client(told), told["bucket"], told["organization"]
    for n in range(7):
        s3.put_object(Bucket=bucket, Key=f"{org}/{n:032x}/context.tar", Body=b"x")
    paginator = s3.get_paginator("list_objects_v2")
    answers = list(paginator.paginate(Bucket=bucket, Prefix=f"{org}/", PaginationConfig={"PageSize": 3}))
    keys = [item["Key"] for answer in answers for item in answer["Contents"]]
    flat = s3.list_objects_v2(Bucket=bucket, Prefix=org, Delimiter="/")
    folders = s3.list_objects_v2(Bucket=bucket, Prefix=f"{org}/", Delimiter="/", MaxKeys=2)
    return {
        "pages": [answer["KeyCount"] for answer in answers],
        "in_order": keys == sorted(keys) and len(keys) == 7,
        "flat": [folder["Prefix"] == f"{org}/" for folder in flat["CommonPrefixes"]],
        "folders": len(folders["CommonPrefixes"]),
        "more": folders["IsTruncated"],
    }


def main():
    told = json.load(sys.stdin)
    checks = {"whole": whole, "parts": parts, "refusals": refusals, "pages": pages}
    json.dump(checks[sys.argv[1]](told), sys.stdout)


main()
