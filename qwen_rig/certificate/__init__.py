"""Certificates: what one card was, did and was judged on one day; kept, shown, compared."""
