"""The command line: ``python -m prewarmkit``.

Glue over the public surface. `main` reads the arguments and picks the command; each command
has a room of its own. Nothing in the library may import from here.
"""
