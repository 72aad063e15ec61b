"""The fixtures that every other integration test builds on."""

from __future__ import annotations

import boto3
import pytest
import redis
import sqlalchemy
from botocore.config import Config


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_gets_an_empty_database_of_its_own(database_url, turn):
    engine = sqlalchemy.create_engine(database_url)

    with engine.begin() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        connection.execute(sqlalchemy.text("CREATE TABLE left_behind (number integer)"))
    engine.dispose()

    assert tables == []


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_gets_an_empty_bucket_of_its_own(connections, bucket, turn):
    client = boto3.client(
        "s3",
        endpoint_url=connections.s3_endpoint_url,
        aws_access_key_id=connections.s3_access_key,
        aws_secret_access_key=connections.s3_secret_key,
        region_name=connections.s3_region,
        config=Config(s3={"addressing_style": "path"}),
    )

    count = client.list_objects_v2(Bucket=bucket)["KeyCount"]
    client.put_object(Bucket=bucket, Key="deep/inside/left-behind.txt", Body=b"something")
    client.close()

    assert count == 0


def test_the_queue_answers_at_its_url(connections):
    with redis.Redis.from_url(connections.queue_url) as client:
        assert client.ping() is True
