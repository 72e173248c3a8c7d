"""hawkBit's DDI towards a company's server, on behalf of the nodes that it assigns for."""
