"""An S3 server on loopback for tests, which the real client talks to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import botocore.session
import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server."""

    name: str
    server: ThreadedMotoServer

    @property
    def files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(use_listings_cache=False)

    def url(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"

    def put(self, objects: Mapping[str, bytes]) -> None:
        for key, data in objects.items():
            self.files.pipe_file(f"{self.name}/{key}", data)

    def remove(self, *keys: str) -> None:
        for key in keys:
            self.files.rm_file(f"{self.name}/{key}")

    def keys(self, prefix: str = "") -> list[str]:
        page = self.files.call_s3("list_objects_v2", Bucket=self.name, Prefix=prefix)
        return [entry["Key"] for entry in page.get("Contents", ())]


def new_bucket(server: ThreadedMotoServer, name: str) -> Bucket:
    bucket = Bucket(name, server)
    bucket.files.call_s3("create_bucket", Bucket=name)
    return bucket


@contextmanager
def bucket_server() -> Iterator[ThreadedMotoServer]:
    """Start a server, and point this process and those that it starts to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("AWS_"):
                patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        for name in CREDENTIALS:
            patch.setenv(name, "test")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield server
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()


@contextmanager
def only_allowed(bucket: Bucket, patch: pytest.MonkeyPatch, *actions: str) -> Iterator[None]:
    """Make requests as a user who may do only this; the server checks permissions meanwhile."""
    host, port = bucket.server.get_host_and_port()
    control = f"http://{host}:{port}/moto-api/reset-auth"
    iam = botocore.session.get_session().create_client("iam", region_name="us-east-1")
    user = "-".join([bucket.name, *actions]).replace(":", "-")
    iam.create_user(UserName=user)
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=user, PolicyName="only", PolicyDocument=policy)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    with patch.context() as inner:
        inner.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        inner.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        s3fs.S3FileSystem.clear_instance_cache()
        httpx.post(control, content=b"0", trust_env=False)
        try:
            yield
        finally:
            httpx.post(control, content=b"1000000000", trust_env=False)
            s3fs.S3FileSystem.clear_instance_cache()
