"""A real PostgreSQL behind a tunnel, asked by psycopg."""

import os

import psycopg

import bastide

with bastide.tunnel(os.environ["VM"], port=5432, name="bastion", resource_group="demo") as tunnel:
    with psycopg.connect(host="127.0.0.1", port=tunnel.port, dbname="postgres") as connection:
        connection.execute("create table numbers (number bigint, words text)")
        with connection.cursor() as cursor:
            with cursor.copy("copy numbers from stdin") as copy:
                for number in range(100_000):
                    copy.write_row((number, f"number {number} in words"))
            cursor.execute("select count(*), sum(number), max(words) from numbers")
            assert cursor.fetchone() == (100_000, 4_999_950_000, "number 99999 in words")
            cursor.execute("select * from numbers order by number")
            assert sum(1 for _ in cursor) == 100_000
    carried = tunnel.statistics
    assert carried.sent > 2_000_000 and carried.received > 2_000_000, carried
print("the database has answered")
