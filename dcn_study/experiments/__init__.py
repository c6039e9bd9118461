"""What is measured on trained networks and on the operators."""
