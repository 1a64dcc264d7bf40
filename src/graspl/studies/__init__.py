"""Studies: many fits, methods by seeds; planned, run, resumed and tuned here.

This room may import `graspl.training_cli`, `graspl.reporting`, `graspl.analysis` and below. Start reading in `plan.py`.
"""
