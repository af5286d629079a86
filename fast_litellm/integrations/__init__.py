"""Seams in other packages; each knows one of them."""
