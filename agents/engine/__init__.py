"""What carries every agent: discovery, lanes, micro-batches, windows, the way of a record, the running worker."""
