"""LoRA adapters as matrices: sites, spectra, reliance, and PEFT folders in and out.

This room may import only `graspl.errors`. Start reading in `sites.py`.
"""

from graspl.adapters.spectrum import ThinSVD, thin_svd

__all__ = ["ThinSVD", "thin_svd"]
