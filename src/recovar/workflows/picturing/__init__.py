"""Pictures of volumes, and scripts that show them in ChimeraX."""
