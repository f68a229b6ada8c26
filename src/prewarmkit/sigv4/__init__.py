"""Signature Version 4: pure, no I/O, no clock but the one handed in."""
