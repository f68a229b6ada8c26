"""Telegram: a file uploaded once gets a ``file_id`` that later sends reuse.

`target` is the `WarmTarget`; `limits` the rates. The rest is theirs: `methods`, `routes`,
`multipart`, `answers`, `handles`, `failures`, `chats` and `events` are pure; `references`
finds what may be sent in the place of bytes, `uploads` sends either, `albums` several at
once, `body` and `calls` do their I/O, `keeper` and `slots` have the chats, `memory` what
failed before.
"""
