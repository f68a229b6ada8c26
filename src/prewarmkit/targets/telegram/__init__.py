"""Telegram: a file uploaded once gets a ``file_id`` that later sends reuse.

`target` is the `WarmTarget`; `limits` the rates. The rest is theirs: `methods`,
`multipart`, `answers`, `handles`, `failures`, `chats` and `events` are pure; `body`,
`slots` and `calls` do the I/O.
"""
