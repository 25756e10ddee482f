"""The inference side: everything that can answer questions about records. Language models, scorecards, a user's own model."""
