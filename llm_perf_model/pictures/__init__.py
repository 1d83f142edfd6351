"""Pictures from numbers and words alone: no specs, no physics."""
