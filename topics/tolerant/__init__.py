"""Reading topics that anybody may write to: one record with a header whose name is no UTF-8 must not stop its partition.

Why it is done this way: docs/decisions/header-names.md.
"""
