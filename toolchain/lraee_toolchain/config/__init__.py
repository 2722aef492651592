"""Every option of an export: of all its steps, and of what learns in it.

May import: nothing.
"""
