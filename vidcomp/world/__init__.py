"""What is shown: factors, motion, rendering and splits. Tensors only, no networks."""
