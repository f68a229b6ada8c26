"""A CDN edge in front of a bucket: asked once for a medium, it has it for those who come later.

`target` is the `WarmTarget`. The rest is its: `places` (where), `answers` (what came),
`life` (until when), `verdicts` (warm or why not) and `failures` are pure; `calls` and
`named_tls` do the I/O.
"""
