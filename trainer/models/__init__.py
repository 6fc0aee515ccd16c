"""The nets edgeslim brings along, and the way in for anyone else's."""

from .cifar_resnet import CifarResNet
from .lenet import LeNet5, LeNet300100
from .mobilenetv3 import MobileNetV3LRASPP
from .registry import BUILT_IN, build_model
from .unet import UNet
from .vgg import VGG

__all__ = ["BUILT_IN", "VGG", "CifarResNet", "LeNet5", "LeNet300100", "MobileNetV3LRASPP", "UNet", "build_model"]
