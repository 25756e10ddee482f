"""What flows through Headrace: records read, decisions written, and the errors that name what went wrong.

This package imports nothing of the other three, so any program can depend on it alone.
"""
