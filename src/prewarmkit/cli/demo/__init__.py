"""``python -m prewarmkit demo``: the main job from end to end, on real parts, on this machine.

::

    arguments ─▶ command ─▶ supervisor ─┬─ place      the folder that all of it lives in
                   │            │       ├─ servers    a real S3 server, a Bot API server
                   │            │       ├─ library    the media: made or found, uploaded
                   │            │       ├─ crew ──▶ worker   the process that one may kill
                   │            │       └─ proof      second pass, digests, one delivery
                   └─ screen, tables ◀── figures

The supervisor starts everything, queues the media, and checks the outcome; the worker process
runs the pool and may be killed at any time. Both talk in the lines of `wire`.
"""
