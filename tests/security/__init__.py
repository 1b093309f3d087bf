"""Who may do what: every address, by everybody, from the URL configuration itself."""
