"""Who may call the API: tokens and their scopes, and the record of what was done with them."""
