"""Devices that cannot run an agent themselves: the gateway runs one for each, as `node_agent` is run on a node."""
