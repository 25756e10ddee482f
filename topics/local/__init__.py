"""Brokers for a desk: child processes on loopback, for the demo, for development and for tests."""
