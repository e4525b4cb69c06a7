"""Graph passes: exact rewrites of an ONNX graph, one a file, for files of any producer."""
