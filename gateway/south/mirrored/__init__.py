"""Content of other ecosystems through the gateway's cache: OSTree, casync, Mender artifacts, OCI registries, plain files.

From the decision to the wire: `rules` (which names last, and what proves their content; no I/O), `proof` and `ostree` (the
checks), `objects` (what is kept on disk), `origin` (one exchange with the upstream), `mirror` (one route: keep, ask again,
answer stale, refuse), `growing` and `streaming` (what is read while it comes), `server` (HTTP towards the nodes).

The gateway adds no trust: a node's own client verifies signatures and digests as it does against the real server. What the
gateway promises is that it never keeps what is provably wrong, and that it says how old an answer may be.
"""
