"""The study: data, runs, records, figures and the book."""
