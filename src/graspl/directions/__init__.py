"""Directions that an adapter leans on: finding, keeping and reading them.

This room may import `graspl.adapters` and below.
"""
