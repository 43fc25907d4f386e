"""Measures what the project promises about speed.

Each number is taken against something that does the same work without the project.
"""
