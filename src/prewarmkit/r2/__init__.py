"""Cloudflare R2, and any S3-compatible endpoint."""
