"""The exact head against the field: class-incremental and federated learning on frozen features, without replay."""
