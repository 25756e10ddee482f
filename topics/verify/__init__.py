"""`headrace verify`: from the topics alone, was every input record accounted for exactly once?

`account` is the pure part (facts in, an Account out), `read` reads the facts from Kafka, `report` says it to a person.
"""
