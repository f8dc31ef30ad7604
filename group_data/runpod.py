"""RunPod's containers: what isn't on the volume is lost when the pod is stopped (its documentation, storage types)."""

data_dir = "/workspace"
