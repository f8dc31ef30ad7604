"""The flash-attn wheels that one controller builds and shares: their keys, their cache, what a build may take."""
