"""HTTP as the core sees it: heads parsed, bodies elsewhere (RFC 9110)."""
