"""What needs an NVIDIA GPU: `make test-gpu`. Everything here is skipped where CUDA sees none."""
