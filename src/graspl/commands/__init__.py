"""Subcommands that are plain functions; their arguments become the options.

This room may import everything below `graspl.cli`. Start reading in `identify.py`.
"""
