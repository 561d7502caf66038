"""What every other room may use; nothing here knows of models or data sets."""
