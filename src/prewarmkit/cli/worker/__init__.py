"""``python -m prewarmkit worker``: pools in processes of their own, beside a host's app.

The *supervisor* is the process that was started. It loads nothing of the host's and no event loop; it
starts *workers*, which are the same command with a hidden argument, and keeps them at work. Between
the two is one socket, the *line*: a worker says on it that it is ready or on its way out, the
supervisor that it shall cut off what runs. Its end tells either side that the other is gone.

`arguments` (what the command may be told) ▶ `supervisor` (the loop) ◀ `slots`, `rolling` (who is
where), `process` (one worker from outside), `patience` (when to start again; pure), `wakeups`
(signals and sockets). `child` (one worker from inside) ◀ `factory` (the host's function), `orders`
(what was asked of it, by signal or line). `exits` has the exit codes.
"""
