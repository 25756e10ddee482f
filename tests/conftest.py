"""Shared fixtures. The heavy machinery is in tests/support/."""
