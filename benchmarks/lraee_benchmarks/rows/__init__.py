"""Run the tower in one way each; may import images and results."""
