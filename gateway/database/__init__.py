"""Tables, records and queries; the only place with SQL."""
