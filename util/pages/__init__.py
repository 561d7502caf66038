"""Self-contained HTML pages: text, tables, pictures and charts in one file that needs neither network nor scripts."""
