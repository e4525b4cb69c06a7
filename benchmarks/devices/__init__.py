"""Where models are measured: on this machine, or on another one over ssh, behind one protocol."""
