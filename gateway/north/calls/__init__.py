"""Streams of events that the gateway opens outwards: sites behind NAT hear of news without being reachable."""
