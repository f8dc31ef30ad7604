"""RunPod's containers: what isn't on the volume is lost when the pod is stopped (qwen_rig/data/disks.yml)."""

data_dir = "/workspace"
