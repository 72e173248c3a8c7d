"""What comes by hand: judged, verified and published like everything else."""
