"""What a person looks at after a run: tables on the terminal, plots."""
