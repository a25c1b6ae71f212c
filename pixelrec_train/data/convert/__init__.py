"""Other projects' files become our tables, and our tables theirs."""
