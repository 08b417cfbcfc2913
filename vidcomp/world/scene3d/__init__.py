"""Lit scenes of solids in a room, ray cast in closed form: CLEVR-like and Shapes3D-like."""
