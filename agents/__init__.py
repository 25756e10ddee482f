"""One file here is one agent: a module with `AGENT = DecisionAgent(...)`. The machinery is in engine/, the commands in cli/."""
