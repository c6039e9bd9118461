"""The pages of the book, their parameters, and the build."""
