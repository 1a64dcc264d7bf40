"""Studies: many fits, methods by seeds, and what they say together.

This room may import `graspl.training_cli`, `graspl.reporting` and below. Start reading in `plan.py`.
"""
