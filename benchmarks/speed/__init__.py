"""What the scripts that measure speed share, and what they measure."""
