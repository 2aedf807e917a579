"""What a reader gets: tables, a summary, pictures."""
