"""Modules with state, built on the ops. docs/methods.md lists the method and the paper of each."""

from ccfast.nn._softmax import smoothed_cross_entropy
from ccfast.nn.camera_memory import CameraMemory
from ccfast.nn.cluster_memory import ClusterMemory
from ccfast.nn.cross_modal_memory import CrossModalMemory
from ccfast.nn.dual_memory import DualMemory
from ccfast.nn.hybrid_memory import HybridMemory
from ccfast.nn.ice import IceLoss
from ccfast.nn.instance_bank import InstanceBank
from ccfast.nn.instance_memory import InstanceMemory
from ccfast.nn.part_labels import agreement_aware_loss, part_guided_loss
from ccfast.nn.proxy_memory import ProxyMemory
from ccfast.nn.queue_contrast import PrototypeContrast, QueueContrast, prototype_density, update_average_
from ccfast.nn.supcon import SupConLoss
from ccfast.nn.swapped_assignment import SwappedAssignment

__all__ = [
    "CameraMemory",
    "ClusterMemory",
    "CrossModalMemory",
    "DualMemory",
    "HybridMemory",
    "IceLoss",
    "InstanceBank",
    "InstanceMemory",
    "PrototypeContrast",
    "ProxyMemory",
    "QueueContrast",
    "SupConLoss",
    "SwappedAssignment",
    "agreement_aware_loss",
    "part_guided_loss",
    "prototype_density",
    "smoothed_cross_entropy",
    "update_average_",
]
