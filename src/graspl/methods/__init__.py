"""LightningModules, one a way to fine-tune.

This room may import `graspl.constraints`, `graspl.evaluation` and below. Start reading in `lora.py`; every rival is a file.
"""

from graspl.methods.averaging import BalancedLitModule, ScaledLitModule
from graspl.methods.caft import CAFTLitModule
from graspl.methods.consistency import UndesirableConsistencyLitModule
from graspl.methods.features import FeatureDistanceLitModule
from graspl.methods.finished import FinishedLitModule
from graspl.methods.grasp import GRASPLitModule
from graspl.methods.grasp_kl import GRASPKLLitModule
from graspl.methods.inference_ablation import InferenceAblationLitModule
from graspl.methods.inference_steering import InferenceSteeringLitModule
from graspl.methods.kl import KLLitModule
from graspl.methods.lora import LoRALitModule
from graspl.methods.preventative import PreventativeSteeringLitModule
from graspl.methods.safe_lora import SafeLoRALitModule
from graspl.methods.spectral import SpectralLitModule
from graspl.methods.subtraction import SubtractionLitModule
from graspl.methods.weight_penalties import L2ToStartLitModule, OrthogonalityLitModule

__all__ = [
    "BalancedLitModule",
    "CAFTLitModule",
    "FeatureDistanceLitModule",
    "FinishedLitModule",
    "GRASPKLLitModule",
    "GRASPLitModule",
    "InferenceAblationLitModule",
    "InferenceSteeringLitModule",
    "KLLitModule",
    "L2ToStartLitModule",
    "LoRALitModule",
    "OrthogonalityLitModule",
    "PreventativeSteeringLitModule",
    "SafeLoRALitModule",
    "ScaledLitModule",
    "SpectralLitModule",
    "SubtractionLitModule",
    "UndesirableConsistencyLitModule",
]
