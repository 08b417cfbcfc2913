"""The generator: trunk, conditioning, objective's ends, and the JEPA head."""
