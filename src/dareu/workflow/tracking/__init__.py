"""What a run tells wandb, trackio or TensorBoard: its settings, the curve of each training, its final figures."""
