"""hawkBit's DDI towards the nodes: one protocol, one view of it for each kind of client."""
