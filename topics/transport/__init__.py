"""Our Faust transport: record lists in, sound offsets out. Faust keeps membership, assignment, timers and lifecycle."""
