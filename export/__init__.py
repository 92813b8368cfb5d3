"""Turn checkpoints into bundles: ONNX graphs, engines, verification, publishing. Needs deepsim[export]."""
