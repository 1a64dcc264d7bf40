"""Fine-tune language models for the skill without the side effect.

Importing this package imports nothing heavy: the public names are loaded when they are first used.
"""

__version__ = "0.1.0"
