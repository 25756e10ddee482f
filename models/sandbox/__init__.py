"""A model server for tests and first steps: it judges by open rules, keeps limits, fails on demand and meters."""
