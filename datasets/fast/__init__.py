"""Fast forms of what training does to images; each is tested against the plain one."""
