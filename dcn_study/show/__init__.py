"""Figures, tables and interactive pieces, made from records and arrays."""
