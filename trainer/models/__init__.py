"""The nets edgeslim brings along, and the way in for anyone else's."""

from .mobilenetv3 import MobileNetV3LRASPP
from .registry import BUILT_IN, build_model
from .unet import UNet

__all__ = ["BUILT_IN", "MobileNetV3LRASPP", "UNet", "build_model"]
