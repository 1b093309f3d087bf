"""People: how they log in, who invites them to what, and the tokens that they make."""
