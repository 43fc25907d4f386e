"""Measures what the project promises about speed, each number against something that does the same
work without it.
"""
