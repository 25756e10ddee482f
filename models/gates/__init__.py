"""What stands before a call and lets it through when its endpoint may be asked: admission, breaker, places."""
