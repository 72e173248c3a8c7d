"""The page for whoever stands at the gateway: read-only, drawn here, of use without JavaScript and without any network beyond."""
