"""HTTP/1.1 over asyncio's own connections: no streams, no tasks and no library in between.

`engine` lives through one exchange; `pool` says who may have a connection; `connecting` opens one, `connection`
moves its bytes, `waiting` ends what stalls; `answer` says what came, read by `h11` or by `llhttp`.
"""
