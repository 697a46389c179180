"""What a review leads to: labels to doubt, corrections, hard cases, what errors have in common."""
