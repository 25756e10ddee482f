"""Answers that are kept, and asked for once at a time."""
