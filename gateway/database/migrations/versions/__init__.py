"""One file per step. A released step is never changed: later tables come by a later step."""
