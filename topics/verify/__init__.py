"""`headrace verify`: from the topics alone, was every input record accounted for exactly once?

`ledger` and `judge` are the pure part (facts in, an account out), `read` reads them from Kafka, `report` says it to a person.
"""
