"""Hold what a report contains, which is the JSON file; imports no other room."""
