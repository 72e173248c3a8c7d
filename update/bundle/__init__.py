"""SWUpdate bundles: container, description, signature, reader, writer."""
