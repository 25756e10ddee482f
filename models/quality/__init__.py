"""What batching does to answers, measured on the way."""
