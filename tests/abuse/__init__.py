"""What a suspicious user would do to a running service, each with a long run of its own.

    python -m tests.abuse.schema        requests made up from the OpenAPI document
    python -m tests.abuse.images        mutated image files
    python -m tests.abuse.overload      four times what the service can do
    python -m tests.abuse.soak          thousands of mixed requests
    python -m tests.abuse.crash         kill -9 under load
    python -m tests.abuse.disks         full, read-only and damaged disks, a clock that jumps
    python -m tests.abuse.shutdown      SIGTERM under load

`make fuzz` and `make soak` run all of them. Every run is bounded in number and time, talks to
loopback alone, prints what it did and measured, and exits with 1 where a mark is missed. Short
versions are in `test_short_versions.py`.
"""
