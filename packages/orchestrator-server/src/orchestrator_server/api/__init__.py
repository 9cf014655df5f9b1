"""The HTTP API: one table of routes, from which routing, authorisation and the OpenAPI document are made."""
