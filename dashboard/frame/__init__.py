"""Inside HighLevel: our pages in its frame, and logging in by what it says of who looks."""
