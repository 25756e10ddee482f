"""The Kafka side: what topics there are, how records are read, decoded, published and accounted for."""
