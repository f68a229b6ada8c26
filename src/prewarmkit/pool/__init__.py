"""The pool: leases work, warms it, settles it."""
