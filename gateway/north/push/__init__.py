"""Masters that push: the gateway as SWUpdate's webserver, for the `swuforward` handler of an SWUpdate above."""
