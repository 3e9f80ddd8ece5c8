"""Whether anything of the future, or of elsewhere, reaches a recommender: other worlds, traces, the certificate."""
