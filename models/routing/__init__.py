"""Who is asked: an endpoint and those after it, a cheap model and a strong one."""
