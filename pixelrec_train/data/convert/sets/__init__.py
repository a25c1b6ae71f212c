"""Public data sets in their makers' own layouts, a file each."""
