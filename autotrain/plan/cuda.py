"""From tensors to a GPU: what the caching allocator reserves, and what the driver adds."""

from __future__ import annotations

from autotrain.plan.memory import Setup
from autotrain.schema import ModelProfile, Prediction
from autotrain.units import MIB

# The CUDA context, cuBLAS and cuDNN handles and kernels: what nvidia-smi shows beyond the
# caching allocator. DESIGN.md section 10 and the A100 rows of the published measurements.
CONTEXT = Prediction(low=250 * MIB, expected=450 * MIB, high=700 * MIB)


def reserved(_model: ModelProfile, _setup: Setup, tensors: Prediction) -> Prediction:
    """What the CUDA caching allocator holds for those tensors.

    It rounds to 512 bytes, takes 2 MiB segments for small and 20 MiB or more for large
    tensors (c10/cuda/CUDACachingAllocator.cpp), and cuDNN and cuBLAS take workspaces.
    """
    return Prediction(
        low=tensors.low,
        expected=1.06 * tensors.expected + 22 * MIB,
        high=1.15 * tensors.high + 64 * MIB,
    )


def device_peak(reserved: Prediction) -> Prediction:
    """What nvidia-smi shows of this process: reserved and context."""
    return Prediction(
        low=reserved.low + CONTEXT.low,
        expected=reserved.expected + CONTEXT.expected,
        high=reserved.high + CONTEXT.high,
    )
