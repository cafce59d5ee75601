"""What holds for every test: one thread of a CPU, so that sums are the same everywhere, and no way out to any hub."""

from __future__ import annotations

import os

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "offline",
}

import torch  # noqa: E402  after the settings that it reads

torch.set_num_threads(1)
