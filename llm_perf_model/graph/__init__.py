"""Specs -> the operators of one forward pass on one device."""
