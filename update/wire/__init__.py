"""HTTP, DDI, mDNS and TLS."""
