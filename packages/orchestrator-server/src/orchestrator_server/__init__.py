"""The orchestrator as a server: storage for many tenants, a queue over it, and (with them) workers and an API."""
