"""Telegram: a file uploaded once gets a ``file_id`` that later sends reuse."""
