"""The public contract: what goes in and comes out of the API, field by field."""
